"""What a dead gateway held is given back by its journal: once, and to the nano."""

import asyncio
import contextlib
import os
import signal

import msgspec
import pytest

from meterplane.contracts.reservations import mark_of
from meterplane.contracts.usage import settle_orphan
from meterplane.gateway.admission_commands import Tokens
from meterplane.kernel import clock
from meterplane.metering import release, ship
from meterplane.metering.release import Releases
from tests.conftest import wait_until
from tests.gateway.admission_bench import POOL_NANO, limit, make_policy, open_bench
from tests.journal.frames import admit, checkpoint
from tests.metering.segments import settle as settled
from tests.metering.test_ship import in_a_thread
from tests.metering.test_ship_in_trouble import sealed_journal


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Redis has read all that dead gateways sent: here they sent nothing that is not answered."""
    monkeypatch.setattr(release, "UNWRITTEN_AFTER_S", 0.0)


@pytest.fixture
async def bench(redis_url):
    async with contextlib.AsyncExitStack() as stack:
        yield await open_bench(redis_url, stack)


def admitted(admission, **changed):
    """The ADMIT of an admission."""
    return admit(
        admission.request_id,
        tenant_id=admission.policy.tenant_id,
        reservation=admission.reservation.decode(),
        epoch=admission.epoch,
        reserved_nano=admission.reserved_nano,
        **changed,
    )


def cost(frame, nano):
    """Its SETTLE: a request that came to its end."""
    end = settle_orphan(frame, None, clock.now_ms())
    return msgspec.structs.replace(end, status="ok", provenance="engine", cost_nano=nano)


def paid(releases):
    wait_until(lambda: (releases.pay(), releases.owed == 0)[1], "everything being given back")


async def test_what_was_settled_and_not_told_is_given_back_at_its_cost(bench, tmp_path, redis_url):
    admissions = [await bench.admit(1000) for _ in range(5)]
    frames = [admitted(each) for each in admissions]
    await bench.settle(admissions[0], 10)  # this one Redis was told of
    home = sealed_journal(
        tmp_path, frames, [cost(frame, 10 * (n + 1)) for n, frame in enumerate(frames)]
    )
    releases = Releases(redis_url)
    for _ in range(3):  # as often as somebody takes it over
        releases.owe(home)
        paid(releases)
        assert await bench.pools() == ({POOL_NANO - 150}, {0})
    assert await bench.reservations() == []


async def test_a_request_that_came_again_costs_under_its_last_reservation_only(
    bench, tmp_path, redis_url
):
    first = await bench.admit(1000)
    second = await bench.admit(5000, request_id=first.request_id)
    last = admitted(second)
    home = sealed_journal(tmp_path, [admitted(first), last], [cost(last, 4321)])
    releases = Releases(redis_url)
    releases.owe(home)
    paid(releases)
    assert await bench.pools() == ({POOL_NANO - 4321}, {0})
    assert await bench.reservations() == []


async def test_a_request_that_moved_to_a_fallback_pays_once_for_its_one_reservation(
    bench, tmp_path, redis_url
):
    admission = await bench.admit(5000)
    moved = admitted(admission, model="fallback", requested_model="tiny-lm")
    home = sealed_journal(tmp_path, [admitted(admission), moved], [cost(moved, 4321)])
    releases = Releases(redis_url)
    releases.owe(home)
    paid(releases)
    assert await bench.pools() == ({POOL_NANO - 4321}, {0})


async def test_every_kind_of_limit_gets_its_own_back(bench, tmp_path, redis_url):
    policy = make_policy(
        limits=[
            limit("concurrency", "at_once", 1),
            limit("output_tokens", "day", 100),
            limit("total_tokens", "day", 100),
        ]
    )
    await bench.know(policy)
    admission = await bench.admit(policy=policy, tokens_in=30, tokens_out=70)
    frame = admitted(admission)
    end = settle_orphan(frame, checkpoint(frame.request_id, 25), clock.now_ms())
    assert (end.tokens_in, end.tokens_out) == (10, 25)
    releases = Releases(redis_url)
    releases.owe(sealed_journal(tmp_path, [frame, end]))
    paid(releases)
    probe = await bench.admit(policy=policy)
    assert probe.left == [0, 75, 65]


async def test_redis_that_is_away_is_asked_again_and_one_that_was_lost_holds_nothing(
    bench, tmp_path, redis_url, monkeypatch
):
    monkeypatch.setattr(release, "AWAY_PAUSE_S", 0.0)
    monkeypatch.setattr(release, "TIMEOUT_S", 0.2)
    admission = await bench.admit(1000)
    frame = admitted(admission)
    home = sealed_journal(tmp_path, [frame, cost(frame, 7)])
    releases = Releases(redis_url)
    releases.owe(home)
    pid = await bench.stall()
    try:
        releases.pay()
        assert len(releases._owed) == 1
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: (releases.pay(), not releases._owed)[1], "the release")
    assert await bench.pools() == ({POOL_NANO - 7}, {0})
    await bench.server.flushall()
    releases.owe(home)
    paid(releases)
    assert await bench.server.dbsize() == 0


async def test_what_is_no_reservation_holds_up_nothing(bench, tmp_path, redis_url, caplog):
    good, bad = [await bench.admit(1000) for _ in range(2)]
    names = await bench.reservations()
    (spoilt,) = [name for name in names if bad.reservation in name]
    await bench.server.set(spoilt, "spoilt")
    frames = [admitted(each) for each in (bad, good)]
    releases = Releases(redis_url)
    releases.owe(sealed_journal(tmp_path, frames, [cost(frame, 7) for frame in frames]))
    paid(releases)
    assert await bench.reservations() == [spoilt]
    assert "is no reservation" in caplog.text


async def test_what_was_reserved_and_not_written_down_goes_back_and_nobody_elses(
    bench, tmp_path, redis_url
):
    """Killed between Redis' answer and its journal."""
    frame = admitted(await bench.admit(1000))
    home = sealed_journal(tmp_path, [frame, cost(frame, 7)])
    alive = await bench.admit(100)
    bench.admitter._tokens = Tokens(mark_of(home))
    for _ in range(5):
        await bench.admit(10)
    releases = Releases(redis_url)
    releases.owe(home)
    paid(releases)
    assert await bench.pools() == ({POOL_NANO - 7 - 100}, {100})
    (left,) = await bench.reservations()
    assert left.decode().endswith(alive.reservation.decode())


async def test_what_is_owed_is_bounded(bench, tmp_path, redis_url, monkeypatch):
    monkeypatch.setattr(release, "OWED_MAX", 3)
    frames = [admitted(await bench.admit(1)) for _ in range(5)]
    releases = Releases(redis_url)
    releases.owe(sealed_journal(tmp_path, frames, [cost(frame, 1) for frame in frames]))
    assert len(releases._owed) == 3


@pytest.mark.django_db(transaction=True)
async def test_a_journal_that_is_taken_over_gives_back_what_its_open_requests_held(bench, tmp_path):
    """Killed with one request in the middle of its stream; nothing was told to Redis of either."""
    ended, cut = [await bench.admit(1_000_000 // 2) for _ in range(2)]
    frames = [admitted(each, request_pico=0, input_token_pico=0) for each in (ended, cut)]
    sealed_journal(tmp_path, [*frames, cost(frames[0], 11), checkpoint(cut.request_id, 100)])
    assert await bench.pools() == ({0}, {POOL_NANO})
    shipper = ship.Shipper(tmp_path, send=lambda _: None)
    await asyncio.to_thread(in_a_thread, shipper.step)
    # 100 tokens at 600 nano.
    assert await bench.pools() == ({POOL_NANO - 11 - 60_000}, {0})
    assert await bench.reservations() == []


@pytest.mark.django_db(transaction=True)
async def test_a_redis_that_is_away_holds_up_no_shipping(organisation, tmp_path, settings):
    settings.ADMISSION_REDIS_URL = "redis://127.0.0.1:9/0"
    event = settled(organisation)
    frame = admit(event.request_id, reservation="x:1")
    home = sealed_journal(tmp_path, [frame, event])
    sent = []
    await asyncio.to_thread(in_a_thread, ship.Shipper(tmp_path, send=sent.extend).step)
    assert len(sent) == 1
    assert home.exists()
