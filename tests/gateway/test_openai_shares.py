"""A request that is several to its engine, of which one fails: who pays for the others.

A real gateway process in front of a server that says what each of them gets.
"""

import asyncio
import json

import httpx2 as httpx
import pytest

from tests.conftest import free_port, wait_until
from tests.gateway.conftest import as_if_new, end, launch
from tests.gateway.models_on_sale import cost_nano, sell, text_model
from tests.gateway.openai_doubles import Double, make_tokenizer, stream, whole
from tests.triton.scripted import scripted

pytestmark = pytest.mark.django_db(transaction=True)

COMPLETE = "/v1/completions"
VLLM = text_model("vllm", "vllm", context_tokens_max=100, output_tokens_max=80)
COUNTED = VLLM | {"name": "counted", "upstream": "counted", "tokenizer": "words"}
LLM = text_model("llm", "llmapi", tokenizer="words")
DUE = VLLM | {"name": "due", "upstream": "due", "bill_errors": True}


@pytest.fixture(scope="module")
def port():
    return free_port()


@pytest.fixture(scope="module")
def one_gateway(django_db_setup, port, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shares")
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
    sell(tmp_path, VLLM, COUNTED, LLM, DUE)


@pytest.fixture
def tenant(acme):
    """Who may use them all."""
    return acme


@pytest.fixture
async def customer(gateway, tenant):
    """The tenant's client."""
    headers = {"Authorization": f"Bearer {tenant.secret}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as client:
        yield client


@pytest.fixture
def ask(customer):
    """`await ask(model, ...)`."""

    async def post(model, **fields):
        return await customer.post(COMPLETE, json={"model": model} | fields)

    return post


async def settled(gateway):
    """The one SETTLE of the one ADMIT, once it is there."""
    await asyncio.to_thread(wait_until, lambda: gateway.settles(), "the settlement")
    (admit,), (settle,) = gateway.admits(), gateway.settles()
    assert admit.request_id == settle.request_id
    assert settle.cost_nano <= admit.reserved_nano
    return settle


def vllm(text, reason="None"):
    return {
        "text_output": text,
        "num_input_tokens": 5,
        "num_output_tokens": 1,
        "finish_reason": reason,
    }


WHOLE = [vllm("one "), vllm("two "), vllm("three", "stop")]
REFUSED = whole({"error": "prompt too long"}, "400 Bad Request")


def pieces(answer):
    """How many pieces of text of each choice were delivered, and how the stream ended."""
    found: dict[int, int] = {}
    *events, last = [line for line in answer.text.split("\n\n") if line]
    for event in events:
        for choice in json.loads(event.removeprefix("data: "))["choices"]:
            if choice["text"]:
                found[choice["index"]] = found.get(choice["index"], 0) + 1
    return found, json.loads(last.removeprefix("data: "))["error"]


async def test_a_prompt_that_is_refused_does_not_make_the_others_free(engine, gateway, ask):
    engine.answers = lambda asked: REFUSED if asked.body["text_input"] == "bad" else stream(*WHOLE)
    # More than are asked at once: the bad one comes when the others are over.
    answer = await ask("vllm", prompt=["hi one"] * 20 + ["bad"], stream=True, max_tokens=20)
    assert answer.status_code == 200
    found, error = pieces(answer)
    assert error["message"] == "prompt too long"
    settle = await settled(gateway)
    assert (settle.status, settle.http_status) == ("error", 400)
    assert settle.tokens_out == sum(found.values()) >= 13 * 3  # all but 8 at once were over
    assert (settle.tokens_in, settle.rows) == (5 * len(found), len(found))
    assert settle.requests == 1
    assert settle.cost_nano == cost_nano(settle.tokens_in, settle.tokens_out)


@pytest.mark.parametrize("model", ["vllm", "due"])
async def test_one_that_fails_late_is_free_itself_unless_errors_are_due(
    engine, gateway, ask, model
):
    late = stream(vllm("one "), vllm("two "), {"error": "out of memory"})
    engine.answers = lambda asked: late if asked.body["text_input"] == "bad" else stream(*WHOLE)
    answer = await ask(model, prompt=["hi"] * 16 + ["bad"], stream=True, max_tokens=20)
    found, error = pieces(answer)
    assert error["message"] == "out of memory"
    bad = found.pop(16)
    assert bad == 2
    settle = await settled(gateway)
    due = sum(found.values()) + (bad if model == "due" else 0)
    assert (settle.status, settle.tokens_out) == ("error", due)
    assert settle.tokens_in == 5 * (len(found) + (model == "due"))
    assert settle.cost_nano == cost_nano(settle.tokens_in, due)


async def test_one_that_is_cut_off_by_anothers_failure_is_due_for_what_it_delivered(
    port, gateway, customer
):
    delivered = asyncio.Event()

    async def script(peer):
        while request := await peer.request():
            if request.startswith(b"GET"):
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            elif b'"bad"' in request:
                await delivered.wait()
                await peer.send(*REFUSED)
            else:
                await peer.send(*stream(*WHOLE)[:3])  # two of its pieces, and then nothing

    body = {"model": "vllm", "prompt": ["hi", "bad"], "stream": True, "max_tokens": 20}
    async with scripted(script, port), customer.stream("POST", COMPLETE, json=body) as answer:
        received = ""
        async for text in answer.aiter_text():
            received += text
            if received.count('"text":"t') + received.count('"text":"o') == 2:
                delivered.set()
    assert "prompt too long" in received
    settle = await settled(gateway)
    assert (settle.status, settle.tokens_in, settle.tokens_out, settle.rows) == ("error", 5, 2, 1)
    assert settle.cost_nano == cost_nano(5, 2)


async def test_choices_that_were_delivered_are_due_when_another_fails(engine, gateway, ask):
    def answers(asked):
        if asked.body["text_input"] == "bad":
            return stream({"error": "out of memory"})
        return stream({"text_output": "one two", "finish_reason": "stop"})

    engine.answers = answers
    prompt = ["hi"] * 4 + ["bad"]
    answer = await ask("llm", prompt=prompt, n=4, stream=True, max_tokens=9)
    found, error = pieces(answer)
    assert error["message"] == "out of memory"
    settle = await settled(gateway)
    assert settle.status == "error"
    assert settle.tokens_out == 2 * len(found) >= 2 * (16 - 7)
    assert settle.tokens_in >= 2 * 2  # of two prompts at least, each with its beginning
    assert settle.cost_nano == cost_nano(settle.tokens_in, settle.tokens_out)


async def test_a_plain_answer_that_failed_delivered_nothing_and_is_free(engine, gateway, ask):
    engine.answers = lambda asked: REFUSED if asked.body["text_input"] == "bad" else stream(*WHOLE)
    answer = await ask("vllm", prompt=["hi one"] * 20 + ["bad"], max_tokens=20)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "prompt too long")
    settle = await settled(gateway)
    assert (settle.status, settle.requests, settle.rows, settle.cost_nano) == ("error", 0, 0, 0)


@pytest.mark.parametrize("streamed", [True, False])
async def test_one_prompt_that_leaves_no_room_for_what_is_asked_stops_all_before_they_are_sent(
    engine, gateway, ask, streamed
):
    engine.says(*stream(*WHOLE))
    prompts = ["hi"] * 20 + ["one " * 40]
    answer = await ask("counted", prompt=prompts, stream=streamed, max_tokens=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert "101 tokens (41 in the prompt, 60 in the completion)" in answer.text
    assert engine.asked == []
    assert gateway.frames() == []
    # One token less is what the context is made for.
    assert (await ask("counted", prompt=prompts, max_tokens=59)).status_code == 200


async def test_who_asks_for_no_length_gets_what_the_context_has_left(engine, gateway, ask):
    engine.says(*stream(*WHOLE))
    assert (await ask("counted", prompt="one " * 90)).status_code == 200
    assert json.loads(engine.asked[0].body["sampling_parameters"])["max_tokens"] == 100 - 91
    answer = await ask("counted", prompt="one " * 99)  # the beginning is one, too
    assert answer.json()["error"]["code"] == "context_length_exceeded"
