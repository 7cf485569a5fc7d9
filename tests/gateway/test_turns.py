"""Turns at a busy model: how many run, how long others wait, and who is told at once that it will
not be served in time. The gate alone; `test_overload.py` has it in a gateway."""

import asyncio
import math
from collections import Counter
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from meterplane.contracts.serving import ModelServing, Target
from meterplane.gateway import turns
from meterplane.gateway.surface import Bounds
from meterplane.gateway.turns import Request, Turns
from meterplane.kernel.errors import WorldError


def serving(version=1, **bounds):
    bounds = {"in_flight_max": 1, "queue_max": 100, "queue_s_max": 10} | bounds
    return ModelServing(name="m", version=version, targets=[Target(upstream="m")], **bounds)


def request(tenant="a", *, priority="normal", weight=1, tokens=10, tier="standard"):
    plan = SimpleNamespace(bounds=[Bounds(tokens, 0, 1)], tier=tier)
    policy = SimpleNamespace(tenant_id=tenant, priority=priority, weight=weight)
    return Request(plan, policy)


def gate_of(**bounds):
    return Turns().gate(serving(**bounds))


def taking(gate, one=None, patience_s=math.inf):
    return asyncio.ensure_future(gate.take(one or request(), patience_s))


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_no_more_run_than_may_and_the_next_begins_as_one_ends():
    gate = gate_of(in_flight_max=3)
    asked = [taking(gate) for _ in range(10)]
    for begun in range(3, 11):
        await settle()
        assert sum(each.done() for each in asked) == begun
        assert gate.running == 3
        asked[begun - 3].result().end()
    await settle()
    for each in asked[8:]:
        each.result().end()
    assert gate.running == 0
    assert sum(gate.waits.counts) == 7  # of those that had to wait


async def test_a_turn_ends_once():
    gate = gate_of(in_flight_max=2)
    first, second = await taking(gate), await taking(gate)
    first.end()
    first.end()
    assert gate.running == 1
    second.end()
    assert gate.running == 0


async def test_priorities_go_first_and_batches_are_low():
    gate = gate_of()
    running = await taking(gate)
    kinds = [("normal", "standard"), ("high", "batch"), ("low", "standard"), ("high", "standard")]
    order = []

    async def serve(priority, tier):
        turn = await gate.take(request((priority, tier), priority=priority, tier=tier), math.inf)
        order.append((priority, tier))
        turn.end()

    tasks = [asyncio.ensure_future(serve(*kind)) for kind in kinds]
    await settle()
    running.end()
    await asyncio.gather(*tasks)
    assert order == [("high", "standard"), ("normal", "standard"), ("high", "batch"),
                     ("low", "standard")]  # fmt: skip


async def test_a_full_queue_turns_the_newest_of_the_loudest_away():
    gate = gate_of(queue_max=4)
    running = await taking(gate, request("loud"))
    loud = [taking(gate, request("loud")) for _ in range(4)]
    await settle()
    quiet = taking(gate, request("quiet"))
    late = taking(gate, request("loud"))
    await settle()
    assert [each.done() for each in loud] == [False, False, False, True]
    for refused in (loud[3], late):
        with pytest.raises(WorldError) as told:
            refused.result()
        assert (told.value.code, told.value.status) == ("model_overloaded", 503)
        assert told.value.retry_after_s >= 1
    assert gate.shed == 2
    running.end()
    (await quiet).end()  # and before those that came first but took more
    assert not loud[1].done()
    for each in loud[:3]:
        (await each).end()


async def test_who_would_wait_too_long_is_told_at_once():
    gate = gate_of(queue_s_max=10)
    running = await taking(gate)
    gate.turn_s = 3.0  # as it was measured
    waiting = [taking(gate) for _ in range(3)]  # 3, 6 and 9 s
    await settle()
    assert not any(each.done() for each in waiting)
    with pytest.raises(WorldError) as told:
        await taking(gate)  # 12 s
    assert told.value.retry_after_s in range(12, 28)  # and spread, to twice as late
    assert len(gate.queue) == 3
    # Another organisation's turn comes sooner: it is not told of a queue that is not its own.
    other = taking(gate, request("quiet"))
    await settle()
    assert not other.done()
    running.end()
    for each in (other, *waiting):
        (await asyncio.wait_for(each, 20)).end()


async def test_who_is_refused_together_does_not_come_back_together():
    told = Counter(turns.overloaded("m", 3.5).retry_after_s for _ in range(1000))
    assert set(told) == {4, 5, 6, 7, 8}
    assert turns.overloaded("m", 0.0).retry_after_s in (1, 2)
    assert turns.overloaded("m", 1e6).retry_after_s == 60


def planned(*servings, tenant="a"):
    bounds = [Bounds(10, 0, 1)] * len(servings)
    offers = [SimpleNamespace(serving=each) for each in servings]
    plan = SimpleNamespace(bounds=bounds, offers=offers, tier="standard")
    return plan, SimpleNamespace(tenant_id=tenant, priority="normal", weight=1)


async def test_what_would_be_shed_is_shed_before_it_is_admitted():
    every = Turns()
    bounded = serving(queue_max=2)
    every.check(*planned(bounded), math.inf)
    gate = every.gate(bounded)
    running = await taking(gate)
    every.check(*planned(bounded), math.inf)
    waiting = [taking(gate) for _ in range(2)]
    await settle()
    with pytest.raises(WorldError):
        every.check(*planned(bounded), math.inf)
    assert gate.shed == 1
    every.check(*planned(bounded, tenant="quiet"), math.inf)  # another would give way
    gate.turn_s = 30.0
    with pytest.raises(WorldError):
        every.check(*planned(bounded, tenant="quiet"), math.inf)
    free = [replace(bounded, name="spare"), replace(bounded, name="none", in_flight_max=0)]
    for other in free:
        every.check(*planned(bounded, other), math.inf)
    running.end()
    for each in waiting:
        (await each).end()


async def test_more_places_serve_faster():
    gate = gate_of(in_flight_max=4, queue_s_max=10)
    running = [await taking(gate) for _ in range(4)]
    gate.turn_s = 12.0
    waiting = [taking(gate) for _ in range(3)]  # one ends each 3 s
    await settle()
    assert not any(each.done() for each in waiting)
    with pytest.raises(WorldError):
        await taking(gate)
    for turn in running:
        turn.end()
    for each in waiting:
        (await each).end()


@pytest.mark.parametrize("patience_s", [0.0, -1.0, 2.9])
async def test_a_callers_own_deadline_counts(patience_s):
    gate = gate_of()
    running = await taking(gate)
    gate.turn_s = 3.0
    with pytest.raises(WorldError) as told:
        await asyncio.wait_for(taking(gate, patience_s=patience_s), 8)  # before queue_s_max
    assert told.value.code == "model_overloaded"
    assert gate.shed == 1
    patient = taking(gate, patience_s=3.1)
    await settle()
    running.end()
    (await patient).end()


async def test_a_wait_that_is_up_ends():
    gate = gate_of(queue_s_max=0.05)
    running = await taking(gate)  # nothing was measured yet: nobody can tell
    with pytest.raises(WorldError) as told:
        await asyncio.wait_for(taking(gate), 20)
    assert told.value.code == "model_overloaded"
    assert len(gate.queue) == 0
    running.end()
    assert gate.running == 0


async def test_who_leaves_frees_the_place_at_once():
    gate = gate_of(queue_max=1)
    running = await taking(gate)
    leaving = taking(gate)
    await settle()
    leaving.cancel()
    await settle()
    assert len(gate.queue) == 0
    staying = taking(gate)
    await settle()
    assert not staying.done()
    running.end()
    (await staying).end()
    assert gate.shed == 0


@pytest.mark.parametrize("first", ["turn", "caller"])
async def test_who_leaves_as_the_turn_comes_passes_it_on(first):
    gate = gate_of()
    running = await taking(gate)
    # The one that runs is of "a", so the next turn is of "b".
    leaving, staying = taking(gate, request("b")), taking(gate, request("a"))
    await settle()
    if first == "turn":
        running.end()
        leaving.cancel()
    else:
        leaving.cancel()
        running.end()
    (await asyncio.wait_for(staying, 20)).end()
    await settle()
    assert leaving.cancelled()
    assert gate.running == 0


async def test_turns_are_measured(monkeypatch):
    now = 0.0
    monkeypatch.setattr(turns, "time", SimpleNamespace(monotonic=lambda: now))
    gate = gate_of()
    for expected in (2.0, 2.0, 2.0):
        turn = await taking(gate)
        now += 2.0
        turn.end()
        assert gate.turn_s == pytest.approx(expected)
    turn = await taking(gate)
    now += 12.0
    turn.end()
    assert gate.turn_s == pytest.approx(3.0)


async def test_a_server_that_hangs_is_not_expected_to_be_what_it_was(monkeypatch):
    now = 0.0
    monkeypatch.setattr(turns, "time", SimpleNamespace(monotonic=lambda: now))
    gate = gate_of(in_flight_max=2, queue_s_max=10)
    running = [await taking(gate), await taking(gate)]
    gate.turn_s = 0.1
    now += 9.0
    waiting = taking(gate)  # 4.5 s, were one to end now
    await settle()
    now += 12.0
    with pytest.raises(WorldError) as told:
        await asyncio.wait_for(taking(gate), 20)
    assert told.value.retry_after_s >= 21
    running[0].end()
    (await waiting).end()
    gate.turn_s = 0.1
    now += 3600.0  # of rest, which tells nothing
    running[1].end()
    running = [await taking(gate), await taking(gate)]
    gate.turn_s = 0.1
    waiting = taking(gate)
    await settle()
    assert not waiting.done()


async def test_the_newest_bounds_hold_and_an_older_reading_changes_nothing():
    every = Turns()
    gate = every.gate(serving(5))
    await taking(gate)
    waiting = [taking(gate) for _ in range(5)]
    await settle()
    assert every.gate(serving(4, in_flight_max=9)) is gate
    await settle()
    assert gate.running == 1
    assert every.gate(serving(6, in_flight_max=3)) is gate
    await settle()
    assert gate.running == 3
    every.gate(serving(7, in_flight_max=1))
    waiting[0].result().end()
    await settle()
    assert gate.running == 2


async def test_a_busy_fallback_is_not_waited_for():
    gate = gate_of()
    turn = gate.free(request())
    assert turn is not None
    assert gate.free(request()) is None
    turn.end()
    assert gate.free(request()) is not None


async def test_the_metrics_tell_of_every_bounded_model():
    every = Turns()
    gate = every.gate(serving(queue_max=1))
    await taking(gate)
    waiting = taking(gate)
    await settle()
    with pytest.raises(WorldError):
        await taking(gate)
    told = {family.name: family.samples for family in every.families()}
    assert told["meterplane_gateway_turns"] == [({"model": "m"}, 1)]
    assert told["meterplane_gateway_queued"] == [({"model": "m"}, 1)]
    assert told["meterplane_gateway_shed"] == [({"model": "m"}, 1)]
    waiting.cancel()
