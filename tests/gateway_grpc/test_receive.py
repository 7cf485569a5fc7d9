"""Messages come in after the key, within a time, and together within a memory."""

import asyncio
import random
import threading
import time
from uuid import UUID

import grpc
import pytest

from meterplane.gateway.kserve_grpc.receive import Room
from tests.conftest import wait_until
from tests.gateway_grpc.frames import connected
from tests.gateway_grpc.tensors import SERVICE, floats, infer_stub, message, stream_stub

MB = 1024 * 1024
LARGE = 16 * MB - 100
METHODS = ["ModelInfer", "ModelStreamInfer", "ModelMetadata", "ModelReady", "ServerMetadata"]
CROWDED = (
    "import sys; from meterplane.gateway.kserve_grpc import receive, service, __main__ as m;"
    "service.STREAMS_OF_TENANT_MAX = 3; sys.exit(m.main())"
)
HALF_A_ROOM = (
    "import sys; from meterplane.gateway.kserve_grpc import receive, service, __main__ as m;"
    "receive.RECEIVE_S_MAX = 6.0; service.ROOM_OF_TENANT_BYTES = 2**25; sys.exit(m.main())"
)


def narrow(receive_s):
    """A gateway of eight calls at once, each of whose messages has this time to come."""
    return (
        "import sys; from meterplane.gateway.kserve_grpc import receive, server, __main__ as m;"
        f"server.CALLS_MAX = 8; receive.RECEIVE_S_MAX = {receive_s}; sys.exit(m.main())"
    )


def keyed(tenant):
    return [("authorization", f"Bearer {tenant.secret}")]


def let_in(call, *arguments, **keywords) -> None:
    """Made until it is served: who is told of an end hears it before its place is free again."""

    def served():
        try:
            call(*arguments, **keywords)
        except grpc.RpcError as failure:
            if failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                return False
            raise
        return True

    wait_until(served, "a place for a call")


def resident_mb(gateway) -> int:
    with open(f"/proc/{gateway.process.pid}/statm") as table:
        return int(table.read().split()[1]) * 4096 // MB


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("method", METHODS)
def test_without_a_key_a_message_is_neither_kept_nor_waited_for(start_gateway, acme, method):
    gateway = start_gateway(program=["-c", narrow(600.0)])
    infer = message("identity", floats(1))
    with grpc.insecure_channel(gateway.url) as channel, connected(gateway.url) as hostile:
        infer_stub(channel)(infer, metadata=keyed(acme))
        before = resident_mb(gateway)
        for secret in ("", "mp_live_x"):
            calls = [hostile.begin(method, LARGE, secret) for _ in range(12)]
            sent = sum(hostile.send(call, b"x" * 2 * MB, wait_s=1) for call in calls)
            wait_until(lambda calls=calls: set(calls) <= hostile.over, "every call being ended")
            print(f"{sent // 1024} kB sent, {resident_mb(gateway) - before} MB more")
        assert resident_mb(gateway) - before < 24
        let_in(infer_stub(channel), infer, metadata=keyed(acme))
    assert len(gateway.settles()) == 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("method", ["ModelInfer", "ModelMetadata"])
def test_a_message_that_does_not_come_ends_its_call_and_others_are_let_in(
    start_gateway, acme, method
):
    gateway = start_gateway(program=["-c", narrow(1.0)])
    live = f"{SERVICE}/ServerLive"
    with grpc.insecure_channel(gateway.url) as channel, connected(gateway.url) as stalled:
        calls = [stalled.begin(method, LARGE, acme.secret) for _ in range(8)]
        time.sleep(0.3)
        with pytest.raises(grpc.RpcError) as failure:
            channel.unary_unary(live)(b"")
        assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, "all calls are taken"
        wait_until(lambda: set(calls) <= stalled.over, "every call being ended")
        let_in(channel.unary_unary(live), b"")
        let_in(infer_stub(channel), message("identity", floats(1)), metadata=keyed(acme))
    assert len(gateway.admits()) == len(gateway.settles()) == 1


@pytest.mark.django_db(transaction=True)
def test_who_sends_slowly_keeps_only_its_own_organisation_waiting(start_gateway, acme, onboard):
    gateway = start_gateway(program=["-c", HALF_A_ROOM])
    other = onboard("other")
    infer = message("identity", floats(1))
    with grpc.insecure_channel(gateway.url) as channel, connected(gateway.url) as stalled:
        for _ in range(2):
            stalled.begin("ModelInfer", LARGE, acme.secret)
        time.sleep(0.3)
        infer_stub(channel)(infer, metadata=keyed(other))
        assert not stalled.over
        infer_stub(channel)(infer, metadata=keyed(acme))
        # It waited until the time of what stalled was up: that is over, or just being told.
        wait_until(lambda: stalled.over, "the end of what stalled", 3)
    assert len(gateway.settles()) == 2


@pytest.mark.django_db(transaction=True)
def test_a_call_of_one_message_takes_no_second_and_no_less(channel, gateway, acme):
    asked = message("identity", floats(1)).SerializeToString()
    call = channel.stream_unary(f"{SERVICE}/ModelInfer")
    assert call(iter([asked]), metadata=keyed(acme)), "the same on the wire"
    for messages, words in (([asked, asked], "one message"), ([], "before its message")):
        with pytest.raises(grpc.RpcError) as failure:
            call(iter(messages), metadata=keyed(acme))
        assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert words in failure.value.details()
    assert len(gateway.admits()) == len(gateway.settles()) == 1


@pytest.mark.django_db(transaction=True)
def test_callers_that_leave_while_they_send_leave_nothing_behind(start_gateway, acme):
    """Their room neither: it would be taken for good by as many as leave here."""
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    gateway = start_gateway()
    for _ in range(10):
        with connected(gateway.url) as leaving:
            for _ in range(chance.randint(1, 12)):
                call = leaving.begin("ModelInfer", LARGE, acme.secret)
                leaving.send(call, b"x" * chance.randrange(100_000), wait_s=0.05)
    with grpc.insecure_channel(gateway.url) as channel:
        large = message("identity", floats(*[1.0] * 200_000))
        calls = [infer_stub(channel).future(large, metadata=keyed(acme)) for _ in range(20)]
        assert all(call.result(timeout=30) for call in calls), f"seed {seed}"
    assert len(gateway.settles()) == 20


@pytest.mark.django_db(transaction=True)
def test_an_organisation_has_so_many_streams_open_and_is_told(start_gateway, acme):
    gateway = start_gateway(program=["-c", CROWDED])
    asked = message("identity", floats(1), id="7")
    with grpc.insecure_channel(gateway.url) as channel:

        def open_one(until):
            def messages():
                yield asked
                until.wait(20)

            call = stream_stub(channel)(messages(), metadata=keyed(acme))
            return call, next(call)

        until = threading.Event()
        calls = [open_one(until)[0] for _ in range(3)]
        with pytest.raises(grpc.RpcError) as failure:
            open_one(until)
        assert failure.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "too many streams" in failure.value.details()
        until.set()
        for call in calls:
            assert list(call) == []
        open_one(until)


A, B = UUID(int=1), UUID(int=2)


async def test_room_is_given_in_turn_but_nobody_waits_for_anothers_share():
    room = Room(10, 6)
    await room.take(A, 6)
    own_share = asyncio.create_task(room.take(A, 1))
    await asyncio.sleep(0)
    await asyncio.wait_for(room.take(B, 4), 20)
    for_all = asyncio.create_task(room.take(B, 2))
    await asyncio.sleep(0)
    room.give_back(A, 1)
    await asyncio.wait_for(own_share, 20)
    assert not for_all.done()
    room.give_back(A, 6)
    await asyncio.wait_for(for_all, 20)
    assert room.taken == 6


async def test_whoever_waits_and_is_cancelled_at_any_moment_leaves_its_room():
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    room = Room(100, 40)

    async def use() -> None:
        tenant, size = UUID(int=chance.randrange(4)), chance.randint(0, 40)
        await room.take(tenant, size)
        try:
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        finally:
            room.give_back(tenant, size)

    tasks = []
    for _ in range(3000):
        tasks.append(asyncio.create_task(use()))
        if chance.random() < 0.5:
            await asyncio.sleep(0)
        if chance.random() < 0.5:
            chance.choice(tasks[-20:]).cancel()
        assert 0 <= room.taken <= 100, f"seed {seed}"
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert room.taken == 0, f"seed {seed}"
    await asyncio.wait_for(room.take(A, 40), 20)
