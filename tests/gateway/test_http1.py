"""Byte scripts for the gateway's HTTP/1.1: what is sent, in which pieces, and what is answered."""

import asyncio
import json

import pytest

from meterplane.gateway.exchange import PARTS_MAX
from meterplane.gateway.http1 import PIPELINED_MAX, URL_BYTES_MAX
from meterplane.kernel.limits import HEADER_BYTES_MAX, HEADER_LINES_MAX, REQUEST_BODY_BYTES_MAX
from tests.gateway.small_app import INTERIM, App, Delivery, statuses

GET = b"GET /v1/models?limit=2 HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /v1/a HTTP/1.1\r\nHost: x\r\n"
PLAIN = POST + b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n" + b'{"a": 12}'
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

WHOLE = {
    "get": GET,
    "post": PLAIN,
    "empty body": POST + b"Content-Length: 0\r\n\r\n",
    "no body": POST + b"\r\n",
    "head": GET.replace(b"GET", b"HEAD"),
    "old": b"POST /v1/a HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
    "old that would stay": b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "close": GET.replace(b"Host", b"Connection: close\r\nHost"),
    "expects": POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    "absolute": b"GET http://other.example/v2/health?x=1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "empty lines before": b"\r\n\r\n" + GET,
    "repeated": GET.replace(b"Host", b"Accept: a\r\nAccept: b\r\nHost"),
    "blanks around a value": GET.replace(b"Host: x", b"Host: \t x \t"),
    "bytes beyond ascii": GET.replace(b"Host", b"X-Name: \xc3\xa9\xff\r\nHost"),
    "chunks": CHUNKED + b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
    "chunk sizes": CHUNKED + b"00a\r\n0123456789\r\nA\r\n0123456789\r\n000\r\n\r\n",
    "chunk extensions": CHUNKED + b'3;name=value;q="a;b"\r\nabc\r\n0;last\r\n\r\n',
    "trailers": CHUNKED + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-Sum: 2\r\n\r\n",
    "no chunks": CHUNKED + b"0\r\n\r\n",
    "upgrade": GET.replace(b"Host", b"Connection: Upgrade\r\nUpgrade: h2c\r\nHost"),
    "two": GET + PLAIN,
    "three of a kind": CHUNKED + b"1\r\na\r\n0\r\n\r\n" + GET + PLAIN,
    "last of three closes": PLAIN + GET + GET.replace(b"Host", b"Connection: close\r\nHost"),
}


def in_two(data: bytes):
    return [(data[:at], data[at:]) for at in range(1, len(data))]


def in_bytes(data: bytes):
    return [data[at : at + 1] for at in range(len(data))]


@pytest.mark.parametrize("name", WHOLE)
async def test_however_a_request_is_cut_its_answer_is_the_same(name):
    sent = WHOLE[name]
    together = Delivery()
    answer = await together.send(sent)
    assert set(statuses(answer)) == {200}
    for pieces in [*in_two(sent), in_bytes(sent)]:
        delivery = Delivery()
        assert await delivery.send(*pieces) == answer, pieces
        assert delivery.wire.ended == together.wire.ended, pieces


OVERSIZED_LINE = b"X-Long: " + b"a" * HEADER_BYTES_MAX + b"\r\n"

REFUSED = {
    "a length and chunks": (
        400,
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "chunks and a length": (
        400,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ),
    "two lengths": (400, POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    "a length twice": (400, POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    "lengths in a list": (400, POST + b"Content-Length: 3, 3\r\n\r\nabc"),
    "a signed length": (400, POST + b"Content-Length: +3\r\n\r\nabc"),
    "a negative length": (400, POST + b"Content-Length: -3\r\n\r\nabc"),
    "a hexadecimal length": (400, POST + b"Content-Length: 0x3\r\n\r\nabc"),
    "a length beyond numbers": (400, POST + b"Content-Length: " + b"9" * 40 + b"\r\n\r\nabc"),
    "a length of nothing": (400, POST + b"Content-Length:\r\n\r\nabc"),
    "almost chunked": (400, POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "chunked behind a control": (
        400,
        POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    "identity": (400, POST + b"Transfer-Encoding: identity\r\n\r\n"),
    "chunked, and more": (
        400,
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    ),
    "more, then chunked": (400, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "chunked twice": (
        400,
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "chunks of old": (
        400,
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "a space before the colon": (400, POST + b"Content-Length : 3\r\n\r\nabc"),
    "a bare line feed": (400, b"GET / HTTP/1.1\nHost: x\n\n"),
    "a bare line feed between headers": (400, POST + b"A: b\nContent-Length: 3\r\n\r\nabc"),
    "a bare line feed at the end": (400, b"GET / HTTP/1.1\r\nHost: x\r\n\n"),
    "a bare carriage return": (400, POST + b"A: b\rContent-Length: 3\r\n\r\nabc"),
    "a folded header": (400, POST + b"A: b\r\n Content-Length: 3\r\n\r\nabc"),
    "a folded length": (400, POST + b"Content-Length:\r\n 3\r\n\r\nabc"),
    "a space before the first header": (400, b"GET / HTTP/1.1\r\n Host: x\r\n\r\n"),
    "a NUL": (400, POST + b"A: b\0c\r\n\r\n"),
    "a control": (400, POST + b"A: b\x01c\r\n\r\n"),
    "a name that is none": (400, POST + b"A(b): c\r\n\r\n"),
    "no name": (400, POST + b": c\r\n\r\n"),
    "no colon": (400, POST + b"nonsense\r\n\r\n"),
    "a name beyond ascii": (400, POST + b"\xe9: c\r\n\r\n"),
    "who asks, twice": (400, GET.replace(b"Host", b"Authorization: a\r\nAuthorization: b\r\nHost")),
    "two hosts": (400, GET.replace(b"Host", b"Host: y\r\nHost")),
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "no version": (400, b"GET /\r\n\r\n"),
    "another version": (400, b"GET / HTTP/1.9\r\nHost: x\r\n\r\n"),
    "the next version": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "a method in small letters": (400, b"get / HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a tab after the method": (400, b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n"),
    "something after the version": (400, b"GET / HTTP/1.1 x\r\nHost: x\r\n\r\n"),
    "a tunnel": (400, b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a target beyond ascii": (400, b"GET /\xe9 HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a target with a control": (400, b"GET /\x7f HTTP/1.1\r\nHost: x\r\n\r\n"),
    "no target": (400, b"GET  HTTP/1.1\r\nHost: x\r\n\r\n"),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "a chunk size that is none": (400, CHUNKED + b"g\r\nabc\r\n0\r\n\r\n"),
    "a negative chunk size": (400, CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n"),
    "a prefixed chunk size": (400, CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n"),
    "a chunk size beyond numbers": (400, CHUNKED + b"f" * 17 + b"\r\nabc\r\n0\r\n\r\n"),
    "a blank in a chunk size": (400, CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n"),
    "no chunk size": (400, CHUNKED + b"\r\nabc\r\n0\r\n\r\n"),
    "a bare line feed after a chunk size": (400, CHUNKED + b"3\nabc\r\n0\r\n\r\n"),
    "a bare line feed in an extension": (400, CHUNKED + b"3;a\nabc\r\n0\r\n\r\n"),
    "a chunk longer than it says": (400, CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n"),
    "a trailer that frames": (400, CHUNKED + b"0\r\nContent-Length : 3\r\n\r\n"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_two_could_read_differently_is_refused_and_the_connection_ends(name):
    status, sent = REFUSED[name]
    for pieces in [(sent,), *in_two(sent), in_bytes(sent)]:
        delivery = Delivery()
        # What follows must not be taken for a request, whatever came before.
        answer = await delivery.send(*pieces, GET)
        assert statuses(answer) == [status], (pieces, answer)
        assert b"connection: close\r\n" in answer, pieces
        assert delivery.wire.ended, pieces
        assert "/v1/models" not in delivery.app.asked, pieces


async def test_what_came_before_unreadable_bytes_is_answered():
    sent = PLAIN + GET + b"nonsense\r\n\r\n" + GET
    for pieces in [(sent,), *in_two(sent)]:
        delivery = Delivery()
        assert statuses(await delivery.send(*pieces))[:2] == [200, 200], pieces
        assert delivery.app.asked == ["/v1/a", "/v1/models"], pieces
        assert delivery.wire.ended


LIMITS = {
    "a long target": (414, b"GET /" + b"a" * URL_BYTES_MAX + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a long header": (431, POST + OVERSIZED_LINE + b"\r\n"),
    "a long name": (431, POST + b"X" * HEADER_BYTES_MAX + b": a\r\n\r\n"),
    "many headers": (
        431,
        POST + b"".join(b"X-%d: a\r\n" % number for number in range(HEADER_LINES_MAX)) + b"\r\n",
    ),
    "one header many times": (431, POST + b"A: a\r\n" * (HEADER_LINES_MAX + 1) + b"\r\n"),
    "a long trailer": (431, CHUNKED + b"0\r\n" + OVERSIZED_LINE + b"\r\n"),
    "a long length": (413, POST + b"Content-Length: %d\r\n\r\n" % (REQUEST_BODY_BYTES_MAX + 1)),
}


@pytest.mark.parametrize("name", LIMITS)
async def test_heads_and_bodies_are_bounded(name):
    status, sent = LIMITS[name]
    for size in (len(sent), 4096, 1000):
        delivery = Delivery()
        pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
        answer = await delivery.send(*pieces)
        allowed = {status, 400} if name == "a long trailer" else {status}
        assert len(statuses(answer)) == 1, answer[:200]
        assert set(statuses(answer)) <= allowed, answer[:200]
        assert delivery.wire.ended


async def test_a_head_without_end_is_refused_at_its_bound():
    delivery = Delivery()
    await delivery.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ")
    sent = 0
    while not delivery.wire.written:
        await delivery.send(b"a" * 1024)
        sent += 1024
    assert HEADER_BYTES_MAX - 1024 < sent <= HEADER_BYTES_MAX + 1024
    assert statuses(delivery.plain) == [431]


UNFINISHED_LINES = {
    "a trailer": b"1\r\nx\r\n0\r\nA: ",
    "a trailer's name": b"1\r\nx\r\n0\r\nA",
    "a chunk's extension": b"1\r\nx\r\n1;a=",
    "the last chunk's extension": b"1\r\nx\r\n0;a=",
}


@pytest.mark.parametrize("name", UNFINISHED_LINES)
@pytest.mark.parametrize("before", [b"", GET], ids=["being answered", "waiting for its turn"])
async def test_a_line_without_end_in_a_body_is_refused_at_its_bound(name, before):
    """The parser holds such a line, and copies it with every read: 300 MB of one were taken."""
    turn = asyncio.Event()

    async def in_turn(exchange):
        if exchange.method == "GET":
            await turn.wait()
        await exchange.body()
        exchange.answer(200, b"", b"")

    delivery = Delivery(App(in_turn))
    await delivery.send(before + CHUNKED)
    connection = delivery.connection
    connection.data_received(UNFINISHED_LINES[name])
    sent = 0
    while not connection._unread:
        connection.data_received(b"y" * 1024)
        sent += 1024
        assert sent <= HEADER_BYTES_MAX + 1024
    assert sent > HEADER_BYTES_MAX - 1024
    turn.set()
    await delivery.settle()
    assert statuses(delivery.plain) == ([200, 400] if before else [400])
    assert delivery.wire.ended
    connection.data_received(b"y" * 1_000_000)  # nobody keeps it
    assert connection._framing_bytes < 2 * HEADER_BYTES_MAX


async def test_what_frames_many_chunks_is_no_line_without_end():
    delivery = Delivery()
    chunk = b"1;" + b"a" * 1000 + b"\r\nx\r\n"
    answer = await delivery.send(CHUNKED, *[chunk * 100] * 3, b"0\r\n\r\n")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["bytes"] == 300
    for _ in range(3 * HEADER_BYTES_MAX // len(CHUNKED)):  # nor are many bodies, one after another
        await delivery.send(CHUNKED, b"1\r\nx\r\n", b"0\r\n\r\n")
    assert set(statuses(delivery.plain)) == {200}


async def test_within_its_bounds_a_head_is_served():
    lines = b"".join(b"X-%d: a\r\n" % number for number in range(HEADER_LINES_MAX - 1))
    long = b"X-Long: " + b"a" * (HEADER_BYTES_MAX - 1000) + b"\r\n"
    for head in (POST + lines, POST + long):
        delivery = Delivery()
        for _ in range(3):
            await delivery.send(head + b"\r\n")
        assert statuses(delivery.plain) == [200] * 3


async def test_a_chunked_body_is_bounded_while_it_arrives():
    delivery = Delivery()
    chunk = b"100000\r\n" + b"a" * 0x100000 + b"\r\n"
    answer = await delivery.send(CHUNKED, *[chunk] * 20)
    assert statuses(answer) == [413]
    assert delivery.wire.ended


async def test_a_body_in_the_smallest_chunks_costs_about_what_it_carries():
    held = []

    async def looks(exchange):
        await exchange.body()
        exchange.answer(200, b"", b"")

    class Looking(App):
        def start(self, exchange):
            held.append(exchange)
            super().start(exchange)

    delivery = Delivery(Looking(looks))
    await delivery.send(CHUNKED, *[b"2\r\nab\r\n" * 5000] * 4)
    (exchange,) = held
    assert len(exchange._parts) == PARTS_MAX
    assert b"".join(exchange._parts) == b"ab" * 20_000
    assert statuses(await delivery.send(b"0\r\n\r\n")) == [200]


async def test_a_body_of_the_largest_size_is_read_whole():
    body = b"a" * REQUEST_BODY_BYTES_MAX
    delivery = Delivery()
    head = POST + b"Content-Length: %d\r\n\r\n" % len(body)
    pieces = [body[at : at + 65536] for at in range(0, len(body), 65536)]
    answer = await delivery.send(head, *pieces)
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["bytes"] == len(body)


async def test_answers_come_in_order_and_one_at_a_time():
    running, most = 0, 0

    async def slowly(exchange):
        nonlocal running, most
        running += 1
        most = max(most, running)
        # The later it was asked, the sooner it would be done.
        await delivery.settle_turns(20 - int(exchange.path[1:]))
        running -= 1
        exchange.answer(200, b"", exchange.path.encode())

    class Turns(Delivery):
        async def settle_turns(self, turns):
            for _ in range(turns):
                await asyncio.sleep(0)

        async def settle(self):
            await self.settle_turns(400)

    delivery = Turns(App(slowly))
    answer = await delivery.send(
        b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(20))
    )
    bodies = [part.rpartition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [b"/%d" % number for number in range(20)]
    assert most == 1


async def test_a_caller_in_haste_is_answered_up_to_the_bound_and_then_closed():
    delivery = Delivery()
    answer = await delivery.send(GET * 1000)
    assert statuses(answer) == [200] * (PIPELINED_MAX + 1)
    assert answer.count(b"connection: close") == 1  # the last one says it
    assert delivery.wire.ended


async def test_a_trailer_is_no_header():
    delivery = Delivery()
    sent = CHUNKED + b"1\r\na\r\n0\r\nAuthorization: Bearer x\r\nContent-Encoding: gzip\r\n\r\n"
    for pieces in [(sent,), *in_two(sent)]:
        delivery = Delivery()
        answer = await delivery.send(*pieces)
        told = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert [name for name, _ in told["headers"]] == ["host", "transfer-encoding"]


async def test_whoever_expects_to_be_invited_is_once():
    delivery = Delivery()
    head = POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    await delivery.send(head)
    assert delivery.wire.written == INTERIM
    await delivery.send(b"abc")
    assert delivery.wire.written.startswith(INTERIM + b"HTTP/1.1 200 OK\r\n")
    assert not delivery.wire.ended
    await delivery.send(head + b"abc")
    assert delivery.wire.written.count(INTERIM) == 1


async def test_nobody_is_invited_to_send_what_is_refused():
    delivery = Delivery()
    head = b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (REQUEST_BODY_BYTES_MAX + 1)
    await delivery.send(POST + head)
    assert statuses(delivery.wire.written) == [413]
    old = Delivery()
    await old.send(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert old.wire.written == b""


async def test_a_broken_body_is_told_at_once_and_not_when_its_time_is_up():
    delivery = Delivery()
    await delivery.send(CHUNKED + b"3\r\nabc\r\n")
    assert delivery.plain == b""
    answer = await delivery.send(b"zz\r\n")
    assert statuses(answer) == [400]
    assert delivery.wire.ended


async def test_a_head_request_has_a_length_and_no_body():
    delivery = Delivery()
    answer = await delivery.send(WHOLE["head"])
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-length: " in head
    assert body == b""


async def test_an_answer_in_chunks_is_framed_once_and_for_the_old_by_the_end():
    async def streams(exchange):
        exchange.begin(200, b"content-type: text/plain\r\n")
        await exchange.write(b"one", more=True)
        await exchange.write(b"", more=True)  # nothing: not the end mark
        await exchange.write(b"two", more=False)

    new, old = Delivery(App(streams)), Delivery(App(streams))
    answer = await new.send(GET)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert b"content-length" not in head
    assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    assert not new.wire.ended
    answer = await old.send(GET.replace(b"1.1", b"1.0"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert body == b"onetwo"
    assert old.wire.ended


async def test_an_answer_that_breaks_off_does_not_look_whole():
    async def breaks(exchange):
        exchange.begin(200, b"")
        await exchange.write(b"one", more=True)
        exchange.break_off()

    delivery = Delivery(App(breaks))
    answer = await delivery.send(GET + GET)
    assert answer.endswith(b"3\r\none\r\n")
    assert delivery.wire.ended
    assert len(delivery.app.asked) == 1


async def test_whoever_leaves_cancels_the_work_and_what_waited_for_it():
    async def never(exchange):
        await asyncio.Event().wait()

    delivery = Delivery(App(never))
    await delivery.send(GET + GET)
    await delivery.close()
    assert delivery.app.left == 1
    assert len(delivery.app.asked) == 1
    assert delivery.connections == set()
