"""The gRPC gateway has the same journal: its disk fails, and what ran ends billed."""

import asyncio

import grpc
import pytest

from tests.gateway import sick_disk
from tests.gateway.test_journal_trouble import events_of
from tests.gateway_grpc.tensors import message, stream_stub, text

pytestmark = pytest.mark.django_db(transaction=True)

PROGRAM = sick_disk.program("meterplane.gateway.kserve_grpc.__main__")
TOKENS = 900


async def test_a_stream_waits_for_the_disk_and_ends_billed(start_gateway, acme, tmp_path):
    file = tmp_path / "sick"
    gateway = start_gateway(program=PROGRAM, TEST_SICK_DISK=str(file))
    headers = [("authorization", f"Bearer {acme.secret}")]

    def ask(channel, tokens):
        return stream_stub(channel)(iter([message("tiny-lm", text("x", tokens))]), metadata=headers)

    async with grpc.aio.insecure_channel(gateway.url) as channel:
        call = ask(channel, TOKENS)
        answers = [await call.read() for _ in range(3)]
        with sick_disk.sick(file, f"EIO {sick_disk.ALL}"):
            rest = asyncio.ensure_future(remaining(call))
            await asyncio.sleep(0.3)  # its next word finds the disk sick
            refused = await answers_of_a_refusal(lambda: ask(channel, 5))
            assert "journal" in refused
            assert not rest.done(), "an end left that nobody wrote down"
        answers += await asyncio.wait_for(rest, 60)
        async with asyncio.timeout(60):
            while any(  # noqa: ASYNC110
                each.error_message for each in await remaining(ask(channel, 5))
            ):
                await asyncio.sleep(0.05)
    gateway.process.terminate()
    await asyncio.to_thread(gateway.process.wait, 40)
    assert not any(each.error_message for each in answers)
    events = events_of(gateway)
    assert {each.status for each in events.values()} == {"ok"}
    assert sorted(each.tokens_out for each in events.values()) == [5, TOKENS]


async def remaining(call):
    answers = []
    while (each := await call.read()) is not grpc.aio.EOF:
        answers.append(each)
    return answers


async def answers_of_a_refusal(ask) -> str:
    """Ask until it is refused; in a stream that is an answer with words."""
    async with asyncio.timeout(30):
        while True:
            for each in await remaining(ask()):
                if each.error_message:
                    return each.error_message
