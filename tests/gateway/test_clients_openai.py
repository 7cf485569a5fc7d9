"""Clients as people use them, unmodified, against a real gateway process and a real Triton.

OpenAI's own library in both its colours, LangChain, and what LiteLLM sends: LiteLLM weighs 380 MB,
so its requests were recorded, with version and headers, and are sent again byte for byte.
"""

import json
import math
from pathlib import Path

import numpy as np
import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

from tenants.standing import set_standing
from tests.gateway.deployments import limit_rate

pytestmark = pytest.mark.django_db(transaction=True)

RECORDED = json.loads((Path(__file__).parent / "recorded" / "litellm.json").read_text())
MESSAGES = [{"role": "user", "content": "Tell me of budgets"}]
ASK = {"model": "tiny-lm", "messages": MESSAGES, "max_tokens": 12, "seed": 7}
COMPLETE = {"model": "tiny-lm", "prompt": "Tell me of budgets", "max_tokens": 12, "seed": 7}
MINILM = "all-minilm-l6-v2"


@pytest.fixture
def sdk(gateway, acme):
    with openai.OpenAI(
        base_url=f"{gateway.url}/v1", api_key=acme.secret, max_retries=0, timeout=30
    ) as client:
        yield client


@pytest.fixture
async def aio(gateway, acme):
    async with openai.AsyncOpenAI(
        base_url=f"{gateway.url}/v1", api_key=acme.secret, max_retries=0, timeout=30
    ) as client:
        yield client


def only_settle(gateway):
    (settle,) = gateway.settles()
    assert settle.status == "ok"
    return settle


# --- OpenAI's library


def test_models_are_listed_and_found_with_what_they_cost(sdk):
    listed = {model.id: model for model in sdk.models.list()}
    assert list(listed) == [MINILM, "identity", "tiny-lm"]
    one = sdk.models.retrieve("tiny-lm")
    assert (one.id, one.object) == ("tiny-lm", "model")
    assert one == listed["tiny-lm"]
    extra = one.model_extra or {}
    assert extra["context_length"] == 4096
    assert extra["max_output_tokens"] == 1024
    assert extra["pricing"]["prompt"] == "0.00000015"
    assert extra["pricing"]["completion"] == "0.0000006"


def test_a_chat_says_the_same_plain_and_streamed(sdk, gateway):
    plain = sdk.chat.completions.create(**ASK)
    chunks = list(
        sdk.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert plain.choices[0].message.role == "assistant"
    assert plain.choices[0].message.content == text
    assert chunks[-1].usage == plain.usage
    assert [settle.tokens_out for settle in gateway.settles()] == [12, 12]


def test_the_librarys_own_stream_helper_puts_a_chat_together(sdk):
    ask = ASK | {"max_tokens": 1024}  # it raises for an answer that ended by its length
    with sdk.chat.completions.stream(**ask) as stream:
        kinds = [event.type for event in stream]
        whole = stream.get_final_completion()
    assert kinds.count("content.delta") > 5
    plain = sdk.chat.completions.create(**ask)
    assert whole.choices[0].finish_reason == plain.choices[0].finish_reason == "stop"
    assert whole.choices[0].message.content == plain.choices[0].message.content


def test_a_completion_says_the_same_plain_and_streamed(sdk):
    plain = sdk.completions.create(**COMPLETE)
    chunks = sdk.completions.create(**COMPLETE, stream=True)
    assert plain.choices[0].text == "".join(c.choices[0].text for c in chunks if c.choices)


def test_raw_answers_and_request_ids_are_there_for_those_who_look(sdk, gateway):
    raw = sdk.chat.completions.with_raw_response.create(**ASK)
    assert raw.headers["x-request-id"] == str(only_settle(gateway).request_id)
    assert raw.parse()._request_id == raw.headers["x-request-id"]
    with sdk.chat.completions.with_streaming_response.create(**ASK) as streamed:
        assert json.loads(streamed.read())["object"] == "chat.completion"


@pytest.mark.parametrize("given", ["one text", ["one text", "another"]])
def test_embeddings_come_as_the_library_asks_and_as_floats(sdk, given):
    packed = sdk.embeddings.create(model=MINILM, input=given)  # asks for base64 by itself
    floats = sdk.embeddings.create(model=MINILM, input=given, encoding_format="float")
    assert len(packed.data) == len([given] if isinstance(given, str) else given)
    for one, other in zip(packed.data, floats.data, strict=True):
        assert len(one.embedding) == 384
        assert np.allclose(one.embedding, other.embedding, atol=1e-6)
    assert packed.usage == floats.usage


async def test_the_async_client_does_all_of_it_too(aio, gateway):
    models = [model.id async for model in aio.models.list()]
    assert "tiny-lm" in models
    assert (await aio.models.retrieve(MINILM)).id == MINILM
    plain = await aio.chat.completions.create(**ASK)
    stream = await aio.chat.completions.create(**ASK, stream=True)
    text = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
    assert plain.choices[0].message.content == text
    completion = await aio.completions.create(**COMPLETE)
    stream = await aio.completions.create(**COMPLETE, stream=True)
    assert completion.choices[0].text == "".join([c.choices[0].text async for c in stream])
    embedded = await aio.embeddings.create(model=MINILM, input=["a", "b"])
    assert [len(item.embedding) for item in embedded.data] == [384, 384]
    assert {settle.status for settle in gateway.settles()} == {"ok"}


async def test_the_async_stream_may_be_left(aio, gateway):
    stream = await aio.chat.completions.create(**ASK | {"max_tokens": 1000}, stream=True)
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            break
    await stream.close()


# --- its errors: the class, the status, and the code


def test_a_wrong_key_is_an_authentication_error(gateway):
    with openai.OpenAI(
        base_url=f"{gateway.url}/v1", api_key="sk-nonsense", max_retries=0
    ) as client:
        for call in (
            client.models.list,
            lambda: client.chat.completions.create(**ASK),
            lambda: client.chat.completions.create(**ASK, stream=True),
            lambda: client.embeddings.create(model=MINILM, input="x"),
        ):
            with pytest.raises(openai.AuthenticationError) as refused:
                call()
            assert (refused.value.status_code, refused.value.code) == (401, "invalid_api_key")


def test_an_unknown_model_is_not_found(sdk, gateway):
    for call in (
        lambda: sdk.models.retrieve("gpt-9"),
        lambda: sdk.chat.completions.create(**ASK | {"model": "gpt-9"}),
        lambda: sdk.completions.create(**COMPLETE | {"model": "gpt-9"}),
        lambda: sdk.embeddings.create(model="gpt-9", input="x"),
    ):
        with pytest.raises(openai.NotFoundError) as refused:
            call()
        assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    assert gateway.frames() == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"temperature": 9}, "temperature"), ({"extra_body": {"surprise": 1}}, "surprise"),
     ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
     ({"max_tokens": 0}, "max_tokens"), ({"response_format": {"type": "json_object"}},
                                        "response_format")],
)  # fmt: skip
def test_what_cannot_be_served_is_a_bad_request_that_names_the_field(sdk, fields, param):
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.chat.completions.create(**ASK | fields)
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"


def test_too_many_requests_are_a_rate_limit_error_that_says_when(sdk, acme):
    limit_rate(acme, 1, 1)
    sdk.chat.completions.create(**ASK | {"max_tokens": 1})
    with pytest.raises(openai.RateLimitError) as refused:
        sdk.chat.completions.create(**ASK)
    assert refused.value.code == "rate_limit_exceeded"
    assert int(refused.value.response.headers["retry-after"]) > 0


def test_a_suspended_account_is_a_permission_denied(sdk, acme):
    set_standing(tenant_id=acme.id, standing="suspended", reason="unpaid")
    with pytest.raises(openai.PermissionDeniedError) as refused:
        sdk.chat.completions.create(**ASK)
    assert refused.value.code == "account_suspended"


def test_a_model_of_another_kind_says_where_it_is_served(sdk):
    with pytest.raises(openai.BadRequestError, match="/v1/embeddings") as refused:
        sdk.chat.completions.create(**ASK | {"model": MINILM})
    assert refused.value.code == "wrong_surface"
    with pytest.raises(openai.BadRequestError, match="chat/completions"):
        sdk.embeddings.create(model="tiny-lm", input="x")


async def test_the_async_client_raises_the_same(aio):
    with pytest.raises(openai.NotFoundError):
        await aio.chat.completions.create(**ASK | {"model": "gpt-9"}, stream=True)


# --- LangChain


@pytest.fixture
def told(gateway, acme):
    """What LangChain is told. Its own HTTP client would stay open for good."""
    with openai.DefaultHttpxClient() as client:
        yield {
            "base_url": f"{gateway.url}/v1",
            "api_key": acme.secret,
            "max_retries": 0,
            "http_client": client,
        }


def test_langchain_chats_streams_and_tells_the_usage(told, gateway):
    chat = ChatOpenAI(model="tiny-lm", max_tokens=12, seed=7, temperature=0.7, **told)
    said = chat.invoke([SystemMessage("Be brief."), HumanMessage("Tell me of budgets")])
    assert isinstance(said, AIMessage)
    chunks = list(chat.stream([SystemMessage("Be brief."), HumanMessage("Tell me of budgets")]))
    assert "".join(str(chunk.content) for chunk in chunks) == said.content
    first, second = gateway.settles()
    assert said.usage_metadata["output_tokens"] == first.tokens_out
    assert said.usage_metadata["input_tokens"] == first.tokens_in
    told_usage = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    assert sum(each["output_tokens"] for each in told_usage) in (0, second.tokens_out)
    assert said.response_metadata["model_name"] == "tiny-lm"


def test_langchain_streams_usage_when_it_is_told_to(told, gateway):
    chat = ChatOpenAI(model="tiny-lm", max_tokens=12, stream_usage=True, **told)
    whole = None
    for chunk in chat.stream("Tell me of budgets"):
        whole = chunk if whole is None else whole + chunk
    assert whole.usage_metadata["output_tokens"] == only_settle(gateway).tokens_out


def test_a_langchain_chain_runs_in_batches(told, gateway):
    chat = ChatOpenAI(model="tiny-lm", max_tokens=5, stop=["zebra"], **told)
    chain = ChatPromptTemplate.from_template("Tell me of {what}") | chat | StrOutputParser()
    answers = chain.batch([{"what": "budgets"}, {"what": "streams"}, {"what": "keys"}])
    assert all(isinstance(answer, str) and answer for answer in answers)
    assert len(gateway.settles()) == 3


async def test_langchain_does_so_asynchronously(told):
    async with openai.DefaultAsyncHttpxClient() as client:
        chat = ChatOpenAI(model="tiny-lm", max_tokens=5, http_async_client=client, **told)
        assert (await chat.ainvoke("Tell me of budgets")).content
        assert [chunk async for chunk in chat.astream("Tell me of budgets")]


def test_langchains_completions_and_embeddings(told, gateway):
    complete = OpenAI(model="tiny-lm", max_tokens=5, n=2, best_of=1, **told)
    assert len(complete.generate(["Budgets", "Streams"]).generations) == 2
    # Its own tokenizer is one of OpenAI's: texts are sent as texts to a model of another.
    embed = OpenAIEmbeddings(model=MINILM, check_embedding_ctx_length=False, **told)
    vectors = embed.embed_documents(["one text", "another"])
    assert [math.isclose(math.hypot(*vector), 1, abs_tol=1e-4) for vector in vectors] == [True] * 2
    assert np.allclose(embed.embed_query("one text"), vectors[0], atol=1e-6)
    assert {settle.status for settle in gateway.settles()} == {"ok"}


def test_langchain_raises_openais_errors(told):
    chat = ChatOpenAI(model="gpt-9", **told)
    with pytest.raises(openai.NotFoundError):
        chat.invoke("x")
    with pytest.raises(openai.BadRequestError):
        ChatOpenAI(model="tiny-lm", **told).bind_tools([{"name": "f", "parameters": {}}]).invoke(
            "x"
        )


# --- LiteLLM


@pytest.mark.parametrize("sent", RECORDED["requests"], ids=lambda sent: sent["call"])
def test_what_litellm_sends_is_answered_as_it_reads_it(gateway, acme, sent):
    headers = {
        name: value.replace(RECORDED["key"], acme.secret) for name, value in sent["headers"].items()
    }
    with gateway.client(acme.secret) as client:
        answer = client.post(sent["path"], content=json.dumps(sent["body"]), headers=headers)
    assert answer.status_code == 200, answer.text
    settle = only_settle(gateway)
    if not sent["body"].get("stream"):
        body = answer.json()
        assert body["model"] == sent["body"]["model"]
        assert body["usage"]["prompt_tokens"] == settle.tokens_in
        return
    *events, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    wants_usage = bool(sent["body"].get("stream_options"))
    assert ('"usage"' in events[-1]) is wants_usage
    assert settle.stream
