"""W3C trace context: continued with a span of ours, or replaced; never just forwarded."""

import asyncio
import json
import random
import re

import httpx2 as httpx
import pytest

from meterplane.gateway import trace
from tests.conftest import wait_until
from tests.gateway.deployments import CHAT, asking, let_in, model, new_name, put_on_sale, target
from tests.gateway.listening import listening

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
SENT = re.compile(rb"traceparent: (\S+)\r\n")


def read(parent: str, state: str | None = None) -> trace.Trace:
    headers = {b"traceparent": parent.encode("latin-1")}
    if state is not None:
        headers[b"tracestate"] = state.encode("latin-1")
    found = trace.read(headers)
    assert found is not None
    return found


def test_no_trace_is_no_trace():
    assert trace.read({}) is None
    assert trace.read({b"tracestate": b"a=1"}) is None, "a state of nothing"


def test_a_callers_trace_goes_on_with_our_span_as_the_parent():
    found = read(PARENT, "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7")
    assert (found.trace_id, found.parent_id, found.flags) == (TRACE_ID, SPAN_ID, "01")
    assert found.span_id not in (SPAN_ID, "0" * 16)
    assert (
        found.headers()
        == (
            f"traceparent: 00-{TRACE_ID}-{found.span_id}-01\r\n"
            "tracestate: congo=t61rcWkgMzE,rojo=00f067aa0ba902b7\r\n"
        ).encode()
    )
    assert read(PARENT).span_id != found.span_id, "each request has its own"


@pytest.mark.parametrize(
    "malformed",
    [
        "",
        "00",
        PARENT.upper(),
        PARENT + "-",
        PARENT + "-more",
        PARENT[:-1],
        PARENT + "0",
        " " + PARENT,
        f"{PARENT}, {PARENT}",  # as two header lines arrive
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"0g-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID[:-1]}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}x-01",
        f"00-{TRACE_ID}-{SPAN_ID}-1",
        f"00-{TRACE_ID}-{SPAN_ID}-0x",
        f"00_{TRACE_ID}_{SPAN_ID}_01",
        PARENT + "\n",
        "mp_live_secret",
        "\xff" * 55,
    ],
)
def test_a_malformed_trace_is_replaced_and_its_state_dropped(malformed: str):
    found = read(malformed, "congo=1")
    assert re.fullmatch(r"[0-9a-f]{32}", found.trace_id)
    assert found.trace_id != TRACE_ID
    assert (found.parent_id, found.flags, found.state) == ("", "01", b"")


def test_a_later_version_is_read_as_far_as_it_is_known_and_goes_on_as_ours():
    for later in (f"01-{TRACE_ID}-{SPAN_ID}-01", f"cc-{TRACE_ID}-{SPAN_ID}-01-what.comes"):
        found = read(later)
        assert (found.trace_id, found.parent_id) == (TRACE_ID, SPAN_ID)
        assert found.headers().startswith(b"traceparent: 00-")


@pytest.mark.parametrize(
    ("given", "flags"), [("00", "00"), ("01", "01"), ("03", "03"), ("ff", "03"), ("fc", "00")]
)
def test_only_flags_that_are_known_are_passed_on(given: str, flags: str):
    assert read(f"00-{TRACE_ID}-{SPAN_ID}-{given}").flags == flags


@pytest.mark.parametrize(
    "state",
    [
        "a=1",
        "tenant@vendor=x:y;z",
        "a=1, b=2 ,c=3",
        "a=1,,b=2",
        ",".join(f"k{n}=v" for n in range(32)),
        "a=" + "v" * 256,
        "a= spaces inside",
    ],
)
def test_a_valid_state_is_passed_on_as_it_came(state: str):
    assert read(PARENT, state).state == state.encode()


@pytest.mark.parametrize(
    "state",
    [
        "a",
        "=1",
        "a=",
        "A=1",
        "a=1,a=2",
        "a=1=2",
        "a=\x7f",
        "a=\xe9",
        "a=1\tb",
        "tenant@@v=1",
        "@v=1",
        "a=" + "v" * 257,
        ",".join(f"k{n}=v" for n in range(33)),
        ",".join(f"k{n}={'v' * 100}" for n in range(6)),
    ],
)
def test_a_malformed_state_is_dropped_and_the_trace_goes_on(state: str):
    found = read(PARENT, state)
    assert (found.trace_id, found.state) == (TRACE_ID, b"")


def test_whatever_is_sent_two_whole_header_lines_at_most_come_out():
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    random_ = random.Random(seed)
    line = re.compile(
        rb"traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]\r\n"
        rb"(tracestate: [\t\x20-\x7e]{1,512}\r\n)?"
    )
    for _ in range(20_000):
        parent, state = bytearray(PARENT.encode()), bytearray(b"congo=t61rcWkgMzE,rojo=00f067")
        for text in (parent, state):
            for _ in range(random_.randrange(3)):
                text[random_.randrange(len(text))] = random_.randrange(256)
        found = trace.read({b"traceparent": bytes(parent), b"tracestate": bytes(state)})
        assert found is not None
        assert line.fullmatch(found.headers()), (parent, state)


@pytest.mark.django_db(transaction=True)
async def test_the_server_the_event_and_the_log_have_one_trace(start_gateway, onboard, tmp_path):
    async with listening() as server:
        gateway = start_gateway(server.url)
        name = new_name("traced")
        put_on_sale(tmp_path, model(name, targets=[target("only", server.url)]))
        headers = {"Authorization": f"Bearer {let_in(onboard).secret}"}
        given = {"traceparent": PARENT, "tracestate": "congo=1"}
        malformed = {"traceparent": "00-malformed", "tracestate": "secret=1"}
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
            for body, trace_headers in (
                (asking(name), given),
                (asking(name, stream=True), given),
                (asking(name), malformed),
                (asking(name), {}),
            ):
                answer = await client.post(CHAT, json=body, headers=trace_headers)
                assert answer.status_code == 200
    plain, streamed, replaced, none = server.heard
    ours = [SENT.search(each) for each in (plain, streamed)]
    assert all(each and each[1].startswith(f"00-{TRACE_ID}-".encode()) for each in ours)
    assert len({each[1] for each in ours if each}) == 2, "a span of each request's own"
    assert not any(SPAN_ID.encode() in each for each in server.heard)
    assert b"tracestate: congo=1\r\n" in plain
    new = SENT.search(replaced)
    assert new is not None
    assert b"malformed" not in replaced
    assert b"tracestate" not in replaced
    assert b"traceparent" not in none
    traces = [TRACE_ID, TRACE_ID, new[1].split(b"-")[1].decode(), ""]
    assert [each.trace_id for each in gateway.settles()] == traces

    def lines():
        text = gateway.log.read_text()
        return [json.loads(line) for line in text.splitlines() if '"tokens_in"' in line]

    await asyncio.to_thread(wait_until, lambda: len(lines()) == 4, "the lines")
    assert [line.get("trace_id", "") for line in lines()] == traces
