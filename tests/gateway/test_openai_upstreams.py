"""An OpenAI-compatible upstream (vLLM, NIM, Triton's own frontend) behind the OpenAI surface.

A real gateway process in front of a server that answers what each test wrote down. What was asked
for reaches it and nothing else; what it says reaches the caller; usage is asked for always, shown
to those who asked, and made up for where it does not come.
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

CHAT, COMPLETE, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
PLAIN = text_model("plain", "openai")
OWN = text_model("own", "openai", upstream="meta/llama:8b", tokenizer="words")
OPEN = text_model(
    "open", "openai", parameters=["tools", "tool_choice", "top_k", "response_format"],
    continuous_usage=True,
)  # fmt: skip
KEYED = text_model("keyed", "openai", secret_env="UPSTREAM_KEY")
UNKEYED = text_model("unkeyed", "openai", secret_env="MISSING_UPSTREAM_KEY")
DUE = text_model("due", "openai", bill_errors=True)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.fixture(scope="module")
def port():
    return free_port()


@pytest.fixture(scope="module")
def one_gateway(django_db_setup, port, tmp_path_factory):
    folder = tmp_path_factory.mktemp("upstreams")
    make_tokenizer(folder / "tokenizers" / "words")
    gateway = launch(
        folder / "gateway",
        f"http://127.0.0.1:{port}",
        TOKENIZERS_DIR=str(folder / "tokenizers"),
        UPSTREAM_KEY="nvapi-secret",
    )
    yield gateway
    end(gateway)


@pytest.fixture
async def upstream(port):
    made = Double()
    async with scripted(made.script, port):
        yield made


@pytest.fixture
def gateway(transactional_db, redis_url, one_gateway):
    return as_if_new(one_gateway)


@pytest.fixture
def selling(transactional_db, redis_url, tmp_path):
    sell(tmp_path, PLAIN, OWN, OPEN, KEYED, UNKEYED, DUE)


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
                body.setdefault("messages", [{"role": "user", "content": "one two"}])
            else:
                body.setdefault("prompt" if path == COMPLETE else "input", "one two")
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


def usage(tokens_in=4, tokens_out=3):
    return {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
    }


def answer(*contents, model="plain", **extra):
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for i, text in enumerate(contents)
    ]
    body = {"id": "c", "object": "chat.completion", "model": model, "choices": choices}
    return body | {"usage": usage()} | extra


def chunk(text, index=0, model="plain", **extra):
    choice = {"index": index, "delta": {"content": text}, "finish_reason": None}
    return {"id": "c", "object": "chat.completion.chunk", "model": model, "choices": [choice]} | (
        extra
    )


def totals(**extra):
    return {"id": "c", "choices": [], "usage": usage()} | extra


DONE = b"[DONE]"


def datas(text):
    return [event.removeprefix("data: ") for event in text.split("\n\n") if event]


# --- what is asked


async def test_only_what_was_read_is_sent_with_our_bound_on_its_output(upstream, gateway, ask):
    upstream.says(*whole(answer("hi")))
    await ask(
        CHAT, "plain", max_tokens=10_000, n=2, temperature=0.5, seed=7, stop=["x"], user="me",
        metadata={"a": "b"}, logprobs=True, top_logprobs=2, presence_penalty=1,
    )  # fmt: skip
    (asked,) = upstream.asked
    assert asked.path == CHAT
    assert asked.body == {
        "model": "plain",
        "messages": [{"role": "user", "content": "one two"}],
        "max_tokens": 1024,
        "n": 2,
        "temperature": 0.5,
        "seed": 7,
        "stop": ["x"],
        "logprobs": True,
        "top_logprobs": 2,
        "presence_penalty": 1,
    }


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({}, {"max_tokens": 64}),
        ({"max_tokens": 9}, {"max_tokens": 9}),
        ({"max_completion_tokens": 9}, {"max_completion_tokens": 9}),
        ({"max_tokens": 5, "max_completion_tokens": 9999}, {"max_completion_tokens": 1024}),
    ],
)
async def test_the_bound_goes_by_the_name_the_caller_used(upstream, ask, asked, sent):
    upstream.says(*whole(answer("hi")))
    await ask(CHAT, "plain", **asked)
    body = upstream.asked[0].body
    assert {name: body[name] for name in body if name.startswith("max_")} == sent


async def test_fields_of_the_allow_list_arrive_as_they_were_written(upstream, gateway, ask):
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "2"},
    ]
    fields = {
        "tools": [TOOL], "tool_choice": "auto", "top_k": 7, "response_format": {"type": "text"},
    }  # fmt: skip
    upstream.says(*whole(answer("hi", model="open")))
    assert (await ask(CHAT, "open", messages=messages, **fields)).status_code == 200
    body = upstream.asked[0].body
    assert {name: body[name] for name in fields} == fields
    assert body["messages"] == messages


async def test_fields_outside_it_are_refused_and_reach_nobody(upstream, gateway, ask):
    for field in ("tools", "top_k", "logit_bias", "service_tier", "stream_option"):
        refused = await ask(CHAT, "plain", **{field: {"a": 1}})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, field)
    assert upstream.asked == []
    assert gateway.frames() == []


@pytest.mark.parametrize("prompt", ["one", ["one", "two"], [1, 2], [[1, 2], [3]]])
async def test_prompts_in_all_four_forms_are_passed_on(upstream, ask, prompt):
    said = {"object": "text_completion", "choices": [{"index": 0, "text": "x"}], "usage": usage()}
    upstream.says(*whole(said))
    given = await ask(COMPLETE, "plain", prompt=prompt, echo=True, logprobs=2)
    assert given.json() == said
    (asked,) = upstream.asked
    assert asked.path == COMPLETE
    body = {"model": "plain", "prompt": prompt, "echo": True, "logprobs": 2, "max_tokens": 64}
    assert asked.body == body


async def test_an_upstreams_key_is_sent_to_it_and_the_callers_is_not(upstream, ask, customer):
    upstream.says(*whole(answer("hi", model="keyed")))
    assert (await ask(CHAT, "keyed")).status_code == 200
    assert upstream.asked[0].headers["authorization"] == "Bearer nvapi-secret"
    upstream.says(*whole(answer("hi")))
    assert (await ask(CHAT, "plain")).status_code == 200
    assert "authorization" not in upstream.asked[1].headers
    assert customer.secret not in str([each.headers for each in upstream.asked])


async def test_a_key_that_is_missing_is_the_operators_to_set(upstream, gateway, ask):
    refused = await ask(CHAT, "unkeyed")
    assert (refused.status_code, refused.json()["error"]["code"]) == (
        503,
        "upstream_secret_missing",
    )
    assert "MISSING_UPSTREAM_KEY" in refused.json()["error"]["message"]
    assert upstream.asked == []


# --- what is answered


async def test_a_plain_answer_passes_as_it_came_under_the_name_it_is_sold_by(
    upstream, gateway, ask
):
    said = answer('the "model":"meta/llama:8b" is mine', model="meta/llama:8b")
    upstream.says(*whole(said))
    given = await ask(CHAT, "own")
    assert given.json() == said | {"model": "own"}
    assert upstream.asked[0].body["model"] == "meta/llama:8b"
    settle = await settled(gateway)
    assert (settle.tokens_in, settle.tokens_out, settle.provenance) == (4, 3, "engine")
    assert settle.model == "own"


@pytest.mark.parametrize("wanted", [True, False])
async def test_usage_is_always_asked_for_and_shown_to_those_who_asked(
    upstream, gateway, ask, wanted
):
    upstream.says(*stream(chunk("one ", usage=None), chunk("two", usage=None), totals(), DONE))
    options = {"stream_options": {"include_usage": True}} if wanted else {}
    given = await ask(CHAT, "plain", stream=True, **options)
    assert upstream.asked[0].body["stream_options"] == {"include_usage": True}
    *events, done = datas(given.text)
    assert done == "[DONE]"
    assert len(events) == (3 if wanted else 2)
    assert ("usage" in given.text) is wanted
    settle = await settled(gateway)
    assert (settle.tokens_in, settle.tokens_out, settle.provenance) == (4, 3, "engine")
    assert settle.bytes_out == len(given.content)


async def test_running_totals_are_asked_for_where_they_exist_and_taken_out_again(
    upstream, gateway, ask
):
    told = [chunk("one ", model="open", usage=usage(4, 1)),
            chunk("two", model="open", usage=usage(4, 2))]  # fmt: skip
    upstream.says(*stream(*told, totals(usage=usage(4, 2)), DONE))
    given = await ask(CHAT, "open", stream=True)
    assert upstream.asked[0].body["stream_options"] == {
        "include_usage": True,
        "continuous_usage_stats": True,
    }
    assert "usage" not in given.text
    assert (await settled(gateway)).tokens_out == 2


async def test_every_chunk_is_under_the_name_it_is_sold_by(upstream, ask):
    there = "meta/llama:8b"
    upstream.says(*stream(chunk("a", model=there), chunk(f'"model":"{there}"', model=there), DONE))
    given = await ask(CHAT, "own", stream=True)
    events = [json.loads(data) for data in datas(given.text)[:-1]]
    assert [event["model"] for event in events] == ["own", "own"]
    assert events[1]["choices"][0]["delta"]["content"] == f'"model":"{there}"'


# --- who counts, where it does not


@pytest.mark.parametrize("told", [{"usage": None}, {"usage": {"prompt_tokens": 4}}])
async def test_a_whole_answer_without_counts_is_counted_by_the_models_tokenizer(
    upstream, gateway, ask, told
):
    upstream.says(*whole(answer("one two three", "one", model="own") | told))
    assert (await ask(CHAT, "own", n=2)).status_code == 200
    settle = await settled(gateway)
    # "user: one two\nassistant:" is four words
    assert (settle.tokens_in, settle.tokens_out, settle.provenance) == (4, 4, "tokenizer")


async def test_a_stream_without_counts_is_counted_by_the_models_tokenizer(upstream, gateway, ask):
    upstream.says(*stream(chunk("one two "), chunk("three"), chunk("four one", 1), DONE))
    await ask(CHAT, "own", stream=True, n=2)
    settle = await settled(gateway)
    assert (settle.tokens_in, settle.tokens_out, settle.provenance) == (4, 5, "tokenizer")


async def test_a_stream_nobody_can_count_is_a_token_a_chunk_and_says_so(upstream, gateway, ask):
    upstream.says(*stream(chunk("one two "), chunk("three"), chunk(""), DONE))
    given = await ask(CHAT, "plain", stream=True)
    assert datas(given.text)[-1] == "[DONE]"
    settle = await settled(gateway)
    assert (settle.tokens_out, settle.provenance) == (2, "estimate")
    assert settle.tokens_in > 0


async def test_a_whole_answer_nobody_can_count_is_not_sold(upstream, gateway, ask):
    upstream.says(*whole(answer("free words") | {"usage": None}))
    given = await ask(CHAT, "plain")
    assert (given.status_code, given.json()["error"]["code"]) == (502, "unmeasurable_answer")
    assert "free words" not in given.text
    assert (await settled(gateway)).cost_nano == 0


@pytest.mark.parametrize("count", [-5, 2**31, 1.5, "4", 10**30])
async def test_counts_that_cannot_be_are_not_billed(upstream, gateway, ask, count):
    upstream.says(*whole(answer("x", usage=usage() | {"completion_tokens": count})))
    assert (await ask(CHAT, "plain")).status_code == 502
    assert (await settled(gateway)).cost_nano == 0


async def test_tool_calls_are_output_too(upstream, gateway, ask):
    call = {"id": "1", "type": "function", "function": {"name": "one", "arguments": "two three"}}
    said = answer("", model="own") | {"usage": None}
    said["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
    upstream.says(*whole(said))
    assert (await ask(CHAT, "own")).status_code == 200
    settle = await settled(gateway)
    assert (settle.tokens_out, settle.provenance) == (2, "tokenizer")  # "onetwo three"


@pytest.mark.parametrize(
    ("model", "told", "tokens_out", "provenance"),
    [
        ("own", [chunk("one two "), chunk("three")], 3, "tokenizer"),
        ("plain", [chunk("one two "), chunk("three")], 2, "estimate"),
        (
            "open",
            [chunk("one two ", usage=usage(4, 2)), chunk("x", usage=usage(4, 3))],
            3,
            "engine",
        ),
    ],
)
async def test_who_leaves_a_stream_pays_for_what_came_until_then_counted_as_well_as_can_be(
    upstream, gateway, ask, customer, model, told, tokens_out, provenance
):
    upstream.says(*stream(*told)[:-1])  # and then nothing
    headers = {"Authorization": f"Bearer {customer.secret}"}
    body = {"model": model, "messages": [{"role": "user", "content": "one two"}], "stream": True}
    async with (
        httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as client,
        client.stream("POST", CHAT, json=body) as given,
    ):
        received = ""
        async for text in given.aiter_text():
            received += text
            if received.count('"content"') == 2:
                break
    settle = await settled(gateway)
    assert (settle.status, settle.http_status) == ("cancelled", 499)
    assert (settle.tokens_out, settle.provenance) == (tokens_out, provenance)
    assert settle.cost_nano == cost_nano(settle.tokens_in, tokens_out)
    assert settle.tokens_in > 0


# --- what goes wrong


@pytest.mark.parametrize(
    ("status", "told"),
    [("400 Bad Request", 400), ("500 Internal Server Error", 502), ("429 Too Many Requests", 503),
     ("401 Unauthorized", 502), ("403 Forbidden", 502)],
)  # fmt: skip
async def test_a_refusal_is_told_without_charge_and_never_as_the_callers_key(
    upstream, gateway, ask, status, told
):
    upstream.says(*whole({"error": {"message": "context too long", "code": 1}}, status))
    given = await ask(CHAT, "plain")
    assert given.status_code == told
    assert set(given.json()["error"]) == {"message", "type", "param", "code"}
    settle = await settled(gateway)
    assert (settle.status, settle.cost_nano) == ("error", 0)


@pytest.mark.parametrize("model", ["plain", "due"])
async def test_an_error_inside_a_200_is_an_error_and_free(upstream, gateway, ask, model):
    upstream.says(*whole({"object": "error", "error": {"message": "CUDA is gone"}}))
    given = await ask(CHAT, model)
    assert given.status_code == 502
    assert given.json()["error"]["message"] == "CUDA is gone"
    assert (await settled(gateway)).status == "error"


@pytest.mark.parametrize(("model", "tokens_out"), [("plain", 0), ("due", 2)])
async def test_an_error_inside_a_stream_ends_it_and_is_due_only_where_errors_are(
    upstream, gateway, ask, model, tokens_out
):
    error = {"error": {"message": "out of memory", "code": 500}}
    upstream.says(*stream(chunk("one "), chunk("two"), error, chunk("never"), DONE))
    given = await ask(CHAT, model, stream=True)
    *_, last = datas(given.text)
    assert json.loads(last)["error"]["message"] == "out of memory"
    assert "never" not in given.text
    settle = await settled(gateway)
    assert (settle.status, settle.tokens_out) == ("error", tokens_out)
    assert (settle.cost_nano > 0) is (tokens_out > 0)


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b"null", b"[" * 100_000, b"\xff"])
async def test_what_is_no_answer_is_a_502_and_free(upstream, gateway, ask, body):
    upstream.says(*whole(body))
    given = await ask(CHAT, "plain")
    assert given.status_code == 502
    assert (await settled(gateway)).cost_nano == 0


async def test_any_cut_of_a_streams_bytes_gives_the_caller_the_same(upstream, gateway, ask):
    head, *events, last = stream(
        chunk("héllo 🙂 ", usage=None), chunk('{"usage":null} [DONE]', usage=None), totals(), DONE
    )
    body = b"".join(events) + last
    given = []
    for pieces in ([body], [body[i : i + 1] for i in range(len(body))]):
        upstream.answers = lambda asked, pieces=pieces: [head, *pieces]
        given.append((await ask(CHAT, "plain", stream=True)).text)
    assert given[0] == given[1]
    assert "héllo 🙂" in json.loads(datas(given[0])[0])["choices"][0]["delta"]["content"]


# --- embeddings


VECTOR = {"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}
EMBEDDED = {
    "object": "list", "model": "plain", "data": [VECTOR],
    "usage": {"prompt_tokens": 4, "total_tokens": 4},
}  # fmt: skip


@pytest.mark.parametrize("given", ["one", ["one", "two"], [1, 2], [[1, 2], [3]]])
@pytest.mark.parametrize("encoding", [None, "float", "base64"])
async def test_embeddings_are_passed_on_in_every_form(upstream, gateway, ask, given, encoding):
    upstream.says(*whole(EMBEDDED))
    fields = {"dimensions": 2} | ({"encoding_format": encoding} if encoding else {})
    found = await ask(EMBED, "plain", input=given, user="me", **fields)
    assert found.json() == EMBEDDED
    (asked,) = upstream.asked
    assert (asked.path, asked.body) == (EMBED, {"model": "plain", "input": given} | fields)
    settle = await settled(gateway)
    assert (settle.tokens_in, settle.tokens_out, settle.provenance) == (4, 0, "engine")


async def test_embeddings_without_counts_are_counted_by_the_models_tokenizer(
    upstream, gateway, ask
):
    upstream.says(*whole(EMBEDDED | {"usage": None, "model": "meta/llama:8b"}))
    found = await ask(EMBED, "own", input=["one two", "three"])
    assert found.json()["model"] == "own"
    settle = await settled(gateway)
    assert (settle.tokens_in, settle.provenance, settle.rows) == (3, "tokenizer", 2)
