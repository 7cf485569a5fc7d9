"""Text engines on Triton behind the OpenAI surface, each in its own protocol, through the gateway.

A real gateway process in front of a server that answers in the words of TensorRT-LLM's ensemble, of
its LLM API, and of vLLM with log probabilities. Whatever the engine's way: the text is the
engine's, the counts are its own or its tokenizer's, and there is one event.
"""

import asyncio
import json
import random
from itertools import pairwise

import httpx2 as httpx
import pytest

from tests.conftest import free_port, wait_until
from tests.gateway.conftest import as_if_new, end, launch
from tests.gateway.engine import chunked
from tests.gateway.models_on_sale import cost_nano, sell, text_model
from tests.gateway.openai_doubles import END, Double, make_tokenizer, stream, words
from tests.triton.scripted import scripted

pytestmark = pytest.mark.django_db(transaction=True)

CHAT, COMPLETE = "/v1/chat/completions", "/v1/completions"
TRT = text_model("trt", "tensorrtllm", parameters=["top_k", "early_stopping"])
LLM = text_model("llm", "llmapi", tokenizer="words", parameters=["top_k"])
VLLM = text_model("vllm", "vllm", tokenizer="words", parameters=["top_k", "min_tokens"])
LOST = text_model("lost", "llmapi", tokenizer="not-there")
UNCOUNTED = text_model("uncounted", "llmapi")


@pytest.fixture(scope="module")
def port():
    return free_port()


@pytest.fixture(scope="module")
def one_gateway(django_db_setup, port, tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    make_tokenizer(folder / "tokenizers" / "words", begins=True)
    tokenizers = {"TOKENIZERS_DIR": str(folder / "tokenizers")}
    gateway = launch(folder / "gateway", f"http://127.0.0.1:{port}", **tokenizers)
    yield gateway
    end(gateway)


@pytest.fixture
async def engine(port):
    made = Double()
    async with scripted(made.script, port):
        yield made


@pytest.fixture
def gateway(transactional_db, redis_url, one_gateway):
    return as_if_new(one_gateway)


@pytest.fixture
def selling(transactional_db, redis_url, tmp_path):
    sell(tmp_path, TRT, LLM, VLLM, LOST, UNCOUNTED)


@pytest.fixture
def customer(acme):
    """A tenant who may use them all."""
    return acme


@pytest.fixture
async def ask(gateway, customer):
    """`await ask(path, model, ...)`."""
    headers = {"Authorization": f"Bearer {customer.secret}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as client:

        async def post(path, model, **fields):
            body = {"model": model} | fields
            if path == CHAT:
                body.setdefault("messages", [{"role": "user", "content": "hi"}])
            else:
                body.setdefault("prompt", "hi one")
            return await client.post(path, json=body)

        yield post


async def settled(gateway):
    """The one SETTLE of the one ADMIT, once it is there."""
    await asyncio.to_thread(wait_until, lambda: gateway.settles(), "the settlement")
    (admit,), (settle,) = gateway.admits(), gateway.settles()
    assert admit.request_id == settle.request_id
    assert settle.cost_nano <= admit.reserved_nano
    if settle.status == "ok":
        assert settle.cost_nano == cost_nano(settle.tokens_in, settle.tokens_out)
    return settle


def chunks(answer):
    """The events of a stream, which ended as streams do."""
    *events, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", ""), answer.text
    return [json.loads(event.removeprefix("data: ")) for event in events]


def texts(answer):
    """The text of each choice of a stream."""
    found = {}
    for event in chunks(answer):
        for choice in event["choices"]:
            text = choice["text"] if "text" in choice else choice["delta"].get("content", "")
            found[choice["index"]] = found.get(choice["index"], "") + text
    return [found[index] for index in sorted(found)]


# --- TensorRT-LLM's ensemble


def trt(text, tokens_out=1, index=0, tokens_in=4, **extra):
    body = {
        "model_name": "trt",
        "model_version": "1",
        "cum_log_probs": 0.0,
        "context_logits": 0.0,
        "num_input_tokens": tokens_in,
        "num_output_tokens": tokens_out,
        "sequence_index": index,
        "text_output": text,
    }
    return body | extra


async def test_the_ensemble_is_asked_in_its_own_tensors(engine, gateway, ask):
    engine.says(*stream(trt("one ")))
    await ask(
        CHAT, "trt", max_tokens=7, temperature=0.5, top_p=0.9, seed=-1, stop=["x", "y"],
        presence_penalty=1, frequency_penalty=-1, top_k=3, user="me", metadata={"a": "b"},
    )  # fmt: skip
    (asked,) = engine.asked
    assert asked.path == "/v2/models/trt/generate_stream"
    assert asked.body == {
        "text_input": "user: hi\nassistant:",
        "max_tokens": 7,
        "stream": True,
        "exclude_input_in_output": True,
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
        "temperature": 0.5,
        "top_p": 0.9,
        "presence_penalty": 1,
        "frequency_penalty": -1,
        "stop_words": ["x", "y"],
        "seed": 2**64 - 1,  # the tensor is unsigned
        "top_k": 3,
    }


@pytest.mark.parametrize("streamed", [True, False])
async def test_the_ensembles_sequences_come_one_by_one_and_are_summed(
    engine, gateway, ask, streamed
):
    engine.says(
        *stream(
            trt("one ", 1, 0), trt("two ", 1, 1), trt("three", 2, 0), trt("four", 1, 1), trt("", 0)
        )
    )
    answer = await ask(COMPLETE, "trt", n=2, max_tokens=3, stream=streamed)
    assert engine.asked[0].body["num_return_sequences"] == 2
    if streamed:
        assert texts(answer) == ["one three", "two four"]
        reasons = [c["finish_reason"] for e in chunks(answer) for c in e["choices"]]
        assert sorted(filter(None, reasons)) == ["length", "stop"]
    else:
        choices = answer.json()["choices"]
        assert [choice["text"] for choice in choices] == ["one three", "two four"]
        assert [choice["finish_reason"] for choice in choices] == ["length", "stop"]
        assert answer.json()["usage"] == {
            "prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9,
        }  # fmt: skip
    settle = await settled(gateway)
    assert (settle.tokens_in, settle.tokens_out, settle.provenance) == (4, 5, "engine")


TOTALS = [trt("one ", 1), trt("one two ", 2), trt("one two three ", 3),
          trt("one two three four", 4)]  # fmt: skip
NEWS = [trt("one ", 1), trt("two ", 1), trt("three ", 1), trt("four", 1)]
MIXED = [trt("one ", 1), trt("one two ", 1), trt("one two three ", 1), trt("one two three four", 1)]
ECHOED = [trt("hi one" + each["text_output"], each["num_output_tokens"] + 4) for each in TOTALS]


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    "events", [TOTALS, NEWS, MIXED, ECHOED], ids=["totals", "news", "mixed", "with the prompt"]
)
async def test_deployments_that_repeat_themselves_are_neither_shown_nor_billed_twice(
    engine, gateway, ask, events, streamed
):
    engine.says(*stream(*events))
    answer = await ask(COMPLETE, "trt", stream=streamed, max_tokens=50)
    found = texts(answer) if streamed else [each["text"] for each in answer.json()["choices"]]
    assert found == ["one two three four"]
    assert (await settled(gateway)).tokens_out == 4


@pytest.mark.parametrize(
    "lost", ["num_input_tokens", "num_output_tokens", "text_output"]
)  # fmt: skip
async def test_an_ensemble_that_does_not_count_is_not_sold(engine, gateway, ask, lost):
    body = trt("free words")
    del body[lost]
    engine.says(*stream(body))
    answer = await ask(CHAT, "trt")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "unmeasurable_answer")
    settle = await settled(gateway)
    assert (settle.status, settle.cost_nano) == ("error", 0)


async def test_a_sequence_nobody_asked_for_is_not_sold(engine, gateway, ask):
    engine.says(*stream(trt("one"), trt("two", index=1)))
    answer = await ask(CHAT, "trt")
    assert answer.json()["error"]["code"] == "unmeasurable_answer"
    assert (await settled(gateway)).cost_nano == 0


async def test_an_ensemble_that_is_not_decoupled_is_its_operators_to_correct(engine, ask):
    engine.says(*stream({"error": "doesn't support decoupled transaction policy"}))
    answer = await ask(CHAT, "trt")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "model_not_decoupled"
    assert "operator" in answer.json()["error"]["message"]


# --- its LLM API


def llm(text, reason=None, **extra):
    return {"model_name": "llm", "text_output": text, "finish_reason": reason} | extra


@pytest.mark.parametrize("streamed", [True, False])
async def test_what_reports_no_counts_is_counted_by_its_models_tokenizer(
    engine, gateway, ask, streamed
):
    engine.says(*stream(llm("one "), llm("one two "), llm("one two three", "stop")))
    answer = await ask(
        COMPLETE, "llm", prompt="hi one two", stream=streamed, seed=-3, top_k=2, stop="x",
        temperature=1, max_tokens=9,
    )  # fmt: skip
    found = texts(answer) if streamed else [each["text"] for each in answer.json()["choices"]]
    assert found == ["one two three"]
    (asked,) = engine.asked
    assert asked.body == {
        "text_input": "hi one two",
        "streaming": True,
        "sampling_param_max_tokens": 9,
        "sampling_param_exclude_input_from_output": True,
        "sampling_param_seed": 2**64 - 3,
        "sampling_param_top_k": 2,
        "sampling_param_stop": ["x"],
        "sampling_param_temperature": 1,
        "return_finish_reason": True,
    }
    settle = await settled(gateway)
    assert (settle.tokens_in, settle.tokens_out) == (1 + 3, 3)  # the prompt's beginning is one
    assert settle.provenance == "tokenizer"


async def test_choices_of_an_engine_that_makes_one_are_several_requests_and_one_event(
    engine, gateway, ask
):
    engine.answers = lambda asked: stream(
        llm("one " * (asked.body["sampling_param_seed"] % 10), "stop")
    )
    answer = await ask(COMPLETE, "llm", prompt=["hi one", "two"], n=3, seed=41, max_tokens=9)
    assert [choice["text"].strip() for choice in answer.json()["choices"]] == [
        "one", "one one", "one one one", "one", "one one", "one one one",
    ]  # fmt: skip
    assert (
        sorted(asked.body["text_input"] for asked in engine.asked) == ["hi one"] * 3 + ["two"] * 3
    )
    settle = await settled(gateway)
    assert settle.tokens_in == (1 + 2) + (1 + 1)  # each prompt once, however often it was sent
    assert (settle.tokens_out, settle.rows) == (2 * (1 + 2 + 3), 2)


async def test_one_choice_that_fails_ends_the_others_and_is_free(engine, gateway, ask):
    def answers(asked):
        if asked.body["sampling_param_seed"] == 2:
            return stream({"error": "out of memory"})
        return stream(llm("one"))

    engine.answers = answers
    answer = await ask(COMPLETE, "llm", n=3, seed=0)
    assert answer.status_code in (400, 502)
    assert "out of memory" in answer.json()["error"]["message"]
    assert (await settled(gateway)).cost_nano == 0


async def test_text_that_does_not_go_on_from_the_last_is_not_sold(engine, gateway, ask):
    engine.says(*stream(llm("one two"), llm("three")))
    answer = await ask(CHAT, "llm")
    assert answer.json()["error"]["code"] == "unmeasurable_answer"
    assert (await settled(gateway)).cost_nano == 0


async def test_a_long_output_is_counted_whole_at_its_end(engine, gateway, ask):
    text = ""
    bodies = []
    for number in range(400):
        text += ("one ", "two ", "three ")[number % 3]
        bodies.append(llm(text))
    engine.says(*stream(*bodies))
    answer = await ask(COMPLETE, "llm", stream=True, max_tokens=1000)
    assert texts(answer) == [text]
    settle = await settled(gateway)
    assert settle.tokens_out == words(text) == 400


@pytest.mark.parametrize("model", ["lost", "uncounted"])
async def test_without_its_tokenizer_it_is_refused_before_anything_is_reserved(
    engine, gateway, ask, model
):
    answer = await ask(CHAT, model)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "tokenizer_missing")
    assert engine.asked == []
    assert gateway.frames() == []


# --- vLLM, where the sample model cannot tell


def vllm(text, tokens_out=1, reason="None", tokens_in=5, **extra):
    return {
        "text_output": text,
        "num_input_tokens": tokens_in,
        "num_output_tokens": tokens_out,
        "finish_reason": reason,
    } | extra


LOGPROBS = json.dumps(
    [
        {"7": {"logprob": -1.5, "rank": 2, "decoded_token": "one"},
         "9": {"logprob": -0.5, "rank": 1, "decoded_token": "two"}},
    ]
)  # fmt: skip


@pytest.mark.parametrize("streamed", [True, False])
async def test_log_probabilities_of_a_chat(engine, gateway, ask, streamed):
    engine.says(*stream(vllm("one", 1, "stop", logprobs=LOGPROBS)))
    answer = await ask(CHAT, "vllm", logprobs=True, top_logprobs=2, stream=streamed)
    sent = json.loads(engine.asked[0].body["sampling_parameters"])
    assert (engine.asked[0].body["return_logprobs"], sent["logprobs"]) == (True, 2)
    if streamed:
        told = [e["choices"][0]["logprobs"] for e in chunks(answer) if e["choices"][0]["logprobs"]]
    else:
        told = [answer.json()["choices"][0]["logprobs"]]
    ((token,),) = [each["content"] for each in told]
    assert (token["token"], token["logprob"]) == ("one", -1.5)
    assert [each["token"] for each in token["top_logprobs"]] == ["two", "one"]


async def test_log_probabilities_of_a_completion_say_where_each_token_stands(engine, ask):
    engine.says(*stream(vllm("one", logprobs=LOGPROBS), vllm("one", 1, "stop", logprobs=LOGPROBS)))
    answer = await ask(COMPLETE, "vllm", logprobs=1)
    assert answer.json()["choices"][0]["logprobs"] == {
        "tokens": ["one", "one"],
        "token_logprobs": [-1.5, -1.5],
        "top_logprobs": [{"two": -0.5}, {"two": -0.5}],
        "text_offset": [0, 3],
    }


async def test_who_asked_for_no_log_probabilities_gets_none(engine, ask):
    engine.says(*stream(vllm("one", 1, "stop", logprobs=LOGPROBS)))
    answer = await ask(CHAT, "vllm")
    assert answer.json()["choices"][0]["logprobs"] is None
    assert "return_logprobs" not in engine.asked[0].body


async def test_a_prompt_longer_than_the_context_is_refused_in_openais_words(engine, gateway, ask):
    answer = await ask(COMPLETE, "vllm", prompt="one " * 5000)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert "4096 tokens" in answer.json()["error"]["message"]
    assert engine.asked == []
    # So long a text is counted on a thread, and admitted before that.
    settle = await settled(gateway)
    assert (settle.status, settle.http_status, settle.cost_nano) == ("error", 400, 0)


async def test_with_a_tokenizer_a_prompt_is_reserved_by_its_tokens_and_not_its_bytes(
    engine, gateway, ask
):
    engine.says(*stream(vllm("one", 1, "stop", tokens_in=1001)))
    assert (await ask(COMPLETE, "vllm", prompt="one " * 1000, max_tokens=10)).status_code == 200
    (admit,) = gateway.admits()
    assert admit.reserved_nano < cost_nano(1001 + 20, 10)
    assert (await settled(gateway)).tokens_in == 1001


async def test_letters_of_several_bytes_arrive_whole_however_the_bytes_are_cut(
    engine, gateway, ask
):
    said = "héllo 🙂 漢字 \u2028 end"
    head, *events, last = stream(vllm(said), vllm("", 0, "stop"))
    body = b"".join(events) + last
    engine.answers = lambda asked: [head, *(body[i : i + 1] for i in range(len(body)))]
    answer = await ask(CHAT, "vllm", stream=True)
    assert texts(answer) == [said]
    assert (await settled(gateway)).tokens_out == 1


@pytest.mark.parametrize("model", ["trt", "llm", "vllm"])
async def test_a_penalty_of_nothing_is_not_mentioned(engine, ask, model):
    """Clients send it without being asked; an engine without penalties would refuse the request."""
    bodies = {"trt": trt("one"), "llm": llm("one", "stop"), "vllm": vllm("one", 1, "stop")}
    engine.says(*stream(bodies[model]))
    answer = await ask(COMPLETE, model, frequency_penalty=0, presence_penalty=0.0, temperature=0)
    assert answer.status_code == 200
    sent = json.dumps(engine.asked[0].body)
    assert "penalty" not in sent
    assert "temperature" in sent  # 0 is another answer than none


def data(body):
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


PLAIN = data(vllm("one ")) + data(vllm("two ", 2)) + data(vllm("", 0, "stop"))
FRAMED = {
    "plain": PLAIN,
    "carriage returns": PLAIN.replace(b"\n", b"\r\n"),
    "only carriage returns": PLAIN.replace(b"\n", b"\r"),
    "comments and fields": b": ping\n\n" + PLAIN.replace(b"data:", b"id: 7\nevent: x\ndata:"),
    "no blank": PLAIN.replace(b"data: ", b"data:"),
    "several data lines": PLAIN.replace(b',"num_input', b',\ndata: "num_input'),
    "error": data(vllm("one ")) + data({"error": "out of memory"}) + data(vllm("never")),
    "not JSON": data(vllm("one ")) + b"data: {nonsense\n\n" + data(vllm("never")),
    "uncounted": data(vllm("one ")) + data({"text_output": "never"}),
    "half an event": data(vllm("one ")) + data(vllm("never"))[:-3],
    "text like an end": data(vllm("data: x\n\ndata: [DONE]\n\n")) + data(vllm("", 0, "stop")),
    "error at once": data({"error": "bad seed"}),
}


@pytest.mark.parametrize("name", FRAMED)
async def test_any_cut_of_an_engines_bytes_gives_the_same_text_counts_and_end(
    engine, gateway, ask, name
):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    head, *_ = stream()
    body = chunked(FRAMED[name]) + END
    split = [chunked(FRAMED[name][i : i + 1]) for i in range(len(FRAMED[name]))]
    cuts = sorted(dice.sample(range(len(body)), 9))
    some = [body[a:b] for a, b in pairwise([0, *cuts, len(body)])]
    found = []
    for pieces in ([body], [b"".join(split) + END], [*split, END], some):
        engine.answers = lambda asked, pieces=pieces: [head, *pieces]
        answer = await ask(COMPLETE, "vllm", stream=True)
        await asyncio.to_thread(wait_until, gateway.at_rest, "the settlement")
        settle = gateway.settles()[-1]
        told = [json.loads(e.removeprefix("data: ")) for e in answer.text.split("\n\n") if "{" in e]
        errors = [each["error"] for each in told if "error" in each]
        said = [c["text"] for each in told for c in each.get("choices", ())]
        ended = answer.text.endswith("data: [DONE]\n\n")
        counts = (settle.status, settle.tokens_in, settle.tokens_out, settle.cost_nano)
        found.append((answer.status_code, "".join(said), errors, ended, counts))
        assert "never" not in "".join(said)
        assert ended is (settle.status == "ok")
    assert found[1:] == found[:1] * 3, name
