"""Tags reach the usage event by every surface, and what cannot be one is refused before ADMIT."""

import contextlib
import signal

import httpx2 as httpx
import pytest

from meterplane.contracts.usage import TAGS_MAX
from meterplane.gateway.surfaces import openai_chat, openai_completions, openai_embeddings
from meterplane.gateway.tags import NONE, tags_of
from meterplane.journal.recovery import recover
from meterplane.kernel.errors import CallerError
from meterplane.metering.ingest import ingest_segment
from meterplane.metering.models import UsageEvent
from tenants.scoping import tenant_scope
from tests.metering.segments import message

TAGS = "x-meterplane-tags"
CHAT = {"model": "tiny-lm", "messages": [{"role": "user", "content": "x"}], "max_tokens": 4}
EMBED = {"model": "all-minilm-l6-v2", "input": "x"}
TENSORS = {"inputs": [{"name": "INPUT0", "shape": [1], "datatype": "FP32", "data": [1]}]}


@pytest.mark.parametrize(
    ("header", "tags"),
    [
        (b"team=search, feature=rerank", {"team": "search", "feature": "rerank"}),
        (b"Team=Search", {"team": "Search"}),
        (b"a=b=c", {"a": "b=c"}),
        (b" a=two words ,, b=%2C%25, ", {"a": "two words", "b": ",%"}),
        (b"city=Z%C3%BCrich", {"city": "Z\u00fcrich"}),
        (b"0.-_=" + b"%F0%9F%98%80" * 256, {"0.-_": "\U0001f600" * 256}),
        (b"", {}),
    ],
)
def test_a_header_is_names_and_values(header, tags):
    assert tags_of(header, None) == tags


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"team", "entry 1: write name=value"),
        (b"a=b, =c", "entry 2: write name=value"),
        (b"a=b, _c=d", "entry 2: write name=value"),
        (b"a b=c", "entry 1: write name=value"),
        (b"n" * 65 + b"=c", "entry 1: write name=value"),
        (b"a=1, b=2, A=3", "entry 3: 'a' is there twice"),
        (b"a=", "entry 1: the value is empty"),
        (b"a=%4", "entry 1: the value is empty, or not percent-encoded"),
        (b"a=%zz", "percent-encoded"),
        ("a=Zürich".encode(), "percent-encoded"),
        (b"a=%FF", "not UTF-8"),
        (b"a=%0A", "control character"),
        (b"a=%ED%A0%80", "not UTF-8"),
        (b"a=" + b"v" * 257, "the value has 257 characters"),
        (b",".join(b"n%d=v" % number for number in range(17)), "17 entries"),
    ],
)
def test_a_header_that_cannot_be_read_is_refused_where_it_is_wrong(header, words):
    with pytest.raises(CallerError) as refused:
        tags_of(header, None)
    assert (refused.value.status, refused.value.field) == (400, TAGS)
    assert words in refused.value.message


def test_who_sends_none_has_none_made():
    assert tags_of(None, None) is NONE
    assert tags_of(None, {}) is NONE


def test_the_header_counts_where_the_body_says_otherwise():
    metadata = {"team": "body", "Team": "another name", "run": "7"}
    told = {"team": "header", "Team": "another name", "run": "7"}
    assert tags_of(b"team=header", metadata) == told


def test_both_together_are_bounded():
    metadata = {f"m{number}": "" for number in range(TAGS_MAX)}
    assert len(tags_of(b"m0=header", metadata)) == TAGS_MAX
    with pytest.raises(CallerError, match="at most 16 tags; these are 17"):
        tags_of(b"team=search", metadata)


@pytest.mark.parametrize(
    "metadata",
    [
        {"n" * 65: "v"},
        {"": "v"},
        {"a\nb": "v"},
        {"a": "v" * 257},
        {"a": "\0"},
        {str(number): "v" for number in range(17)},
    ],
)
def test_metadata_that_cannot_be_kept_is_refused(metadata):
    with pytest.raises(CallerError) as refused:
        tags_of(None, metadata)
    assert refused.value.code == "invalid_tags"
    assert (refused.value.field or "").startswith("metadata")


@pytest.mark.parametrize(
    ("parse", "body"),
    [
        (openai_chat.parse, b'{"model": "m", "messages": [{"role": "user"}], "metadata": %b}'),
        (openai_completions.parse, b'{"model": "m", "prompt": "p", "metadata": %b}'),
        (openai_embeddings.parse, b'{"model": "m", "input": "p", "metadata": %b}'),
    ],
)
def test_each_openai_surface_reads_strings_of_metadata(parse, body):
    assert parse(body % b'{"team": "search"}').metadata == {"team": "search"}
    assert parse(body % b"null").metadata is None
    with pytest.raises(CallerError) as refused:
        parse(body % b'{"team": 1}')
    assert (refused.value.field or "").startswith("metadata")


def stored_tags(organisation, settles) -> dict[str, dict[str, str]]:
    """Each event's tags by its surface, once its segment is taken in."""
    ingest_segment(message(settles))
    with tenant_scope(organisation.id):
        return dict(UsageEvent.objects.values_list("surface", "tags"))


@pytest.mark.django_db(transaction=True)
def test_tags_of_every_surface_are_on_its_usage_event(gateway, acme):
    with gateway.client(acme.secret) as client:
        client.headers[TAGS] = "team=search"
        answers = [
            client.post("/v1/chat/completions", json=CHAT | {"metadata": {"run": "7"}}),
            client.post("/v1/embeddings", json=EMBED | {"metadata": {"team": "body"}}),
            client.post("/v2/models/identity/infer", json=TENSORS),
            client.post("/v2/models/tiny-lm/generate", json={"text_input": "x"}),
        ]
    refused = [answer.text for answer in answers if answer.status_code != 200]
    assert not refused
    assert stored_tags(acme, gateway.settles()) == {
        "openai.chat": {"team": "search", "run": "7"},
        "openai.embeddings": {"team": "search"},
        "kserve.infer": {"team": "search"},
        "kserve.generate": {"team": "search"},
    }


@pytest.mark.django_db(transaction=True)
def test_nothing_is_admitted_whose_tags_cannot_be_kept(gateway, acme):
    with gateway.client(acme.secret) as client:
        told = client.post("/v1/chat/completions", json=CHAT, headers={TAGS: "a=1,a=2"})
        body = client.post("/v1/embeddings", json=EMBED | {"metadata": {"a": "v" * 257}})
        tensors = client.post("/v2/models/identity/infer", json=TENSORS, headers={TAGS: "team"})
    with gateway.client("mp_live_nobody") as client:
        unknown = client.post("/v1/chat/completions", json=CHAT, headers={TAGS: "team"})
    assert [told.status_code, body.status_code, tensors.status_code] == [400] * 3
    assert told.json()["error"]["code"] == "invalid_tags"
    assert told.json()["error"]["param"] == TAGS
    assert body.json()["error"]["param"] == "metadata.a"
    assert "entry 1: write name=value" in tensors.json()["error"]
    assert unknown.status_code == 401
    assert gateway.admits() == []


@pytest.mark.django_db(transaction=True)
def test_a_stream_that_was_killed_keeps_its_tags(start_gateway, triton, acme):
    gateway = start_gateway(triton.http_url)
    ask = CHAT | {"stream": True, "max_tokens": 200, "seed": 1, "metadata": {"run": "7"}}
    headers = {"Authorization": f"Bearer {acme.secret}", TAGS: "team=search"}
    with (
        httpx.Client(base_url=gateway.url, headers=headers, timeout=20) as client,
        contextlib.suppress(httpx.TransportError),
        client.stream("POST", "/v1/chat/completions", json=ask) as answer,
    ):
        for number, _ in enumerate(answer.iter_lines()):
            if number == 4:
                gateway.process.kill()
    assert gateway.process.wait(30) == -signal.SIGKILL
    for directory in gateway.journal.iterdir():
        recover(directory)
    (settle,) = gateway.settles()
    assert settle.status == "interrupted"
    assert stored_tags(acme, [settle]) == {"openai.chat": {"team": "search", "run": "7"}}
