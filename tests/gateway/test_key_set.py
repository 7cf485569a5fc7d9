"""The keys of receipts are told without a key, and read once however many ask."""

import asyncio
from types import SimpleNamespace

import pytest

from meterplane.gateway import key_set
from meterplane.gateway.exchange import JSON
from meterplane.kernel.errors import WorldError

BODY = b'{"keys":[]}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)


@pytest.fixture
async def control():
    """A control plane that notes what it was asked, and answers as it is told."""
    told = SimpleNamespace(answer=ANSWER, asked=[], url="")

    async def answer(reader, writer):
        told.asked.append(await reader.readuntil(b"\r\n\r\n"))
        await asyncio.sleep(0.01)
        writer.write(told.answer)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    told.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/behind"
    yield told
    server.close()
    await server.wait_closed()


async def told_by(control) -> tuple[int, bytes, bytes]:
    answers = []
    exchange = SimpleNamespace(answer=lambda *answer: answers.append(answer))
    await key_set.tell(exchange, SimpleNamespace(control_url=control.url))
    return answers[0]


async def test_however_many_ask_it_is_read_once(control):
    answers = await asyncio.gather(*(told_by(control) for _ in range(20)))
    assert {body for _, _, body in answers} == {BODY}
    assert answers[0][:2] == (200, JSON + b"cache-control: public, max-age=300\r\n")
    await told_by(control)
    assert len(control.asked) == 1
    assert control.asked[0].startswith(b"GET /behind/.well-known/jwks.json HTTP/1.1\r\n")
    assert b"authorization" not in control.asked[0].lower()


async def test_what_was_read_last_is_told_while_nothing_answers(control, monkeypatch):
    assert (await told_by(control))[2] == BODY
    monkeypatch.setattr(key_set, "HELD_S", 0.0)
    monkeypatch.setattr(key_set, "AGAIN_S", 0.0)
    for broken in (b"", b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", b"nonsense\r\n\r\n"):
        control.answer = broken
        assert (await told_by(control))[2] == BODY
    control.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n" + b'{"keys":[1]}'
    assert (await told_by(control))[2] == b'{"keys":[1]}'


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", ANSWER[:-3]]
)
async def test_keys_that_never_could_be_read_are_a_503(control, answer):
    control.answer = answer
    with pytest.raises(WorldError) as broken:
        await told_by(control)
    assert (broken.value.status, broken.value.code) == (503, "control_unavailable")


async def test_a_gateway_that_knows_no_control_plane_says_so():
    with pytest.raises(WorldError, match="CONTROL_URL"):
        await told_by(SimpleNamespace(url=""))
