"""Reservations of requests that are over go back; of those that may still cost, none is touched."""

import asyncio
import contextlib

import pytest

from meterplane.contracts import admission_keys
from meterplane.kernel.limits import RESERVATION_TTL_S
from meterplane.metering.ingest import ingest_segment
from meterplane.policy.reap import ALLOWED_S, reap_reservations
from tests.gateway.admission_bench import POOL_NANO, make_policy, open_bench
from tests.metering.segments import message, settle
from tests.metering.test_ship import in_a_thread
from tests.policy.test_budget_grants import admin

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def bench(redis_url):
    async with contextlib.AsyncExitStack() as stack:
        yield await open_bench(redis_url, stack)


def drained(ago_s=0.0):
    with admin() as connection:
        connection.execute("DELETE FROM journal_watermark")
        connection.execute(
            "INSERT INTO journal_watermark SELECT gen_random_uuid(), 'test',"
            " clock_timestamp() - make_interval(secs => %s), clock_timestamp()",
            (ago_s,),
        )


async def older(bench, admission, seconds):
    """As if a reservation had been made that long ago."""
    key = admission_keys.reservation(admission.policy.tenant_id, admission.reservation.decode())
    left_ms = await bench.server.pttl(key)
    await bench.server.pexpire(key, int(left_ms - seconds * 1000))


async def reaped():
    found = []
    await asyncio.to_thread(in_a_thread, lambda: found.append(reap_reservations()))
    return found[0]


async def test_what_was_never_forwarded_costs_nothing_and_what_was_costs_what_it_did(
    bench, organisation
):
    policy = make_policy(tenant_id=organisation.id)
    await bench.fill(policy)
    lost, told = [await bench.admit(10_000, policy=policy) for _ in range(2)]
    event = settle(organisation, cost_nano=123, request_id=told.request_id)
    await asyncio.to_thread(in_a_thread, ingest_segment, message([event]))
    for each in (lost, told):
        await older(bench, each, ALLOWED_S + 1)
    drained()
    assert await bench.pools(policy) == ({POOL_NANO - 20_000}, {20_000})
    assert await reaped() == 2
    assert await bench.pools(policy) == ({POOL_NANO - 123}, {0})
    assert await bench.reservations() == []
    assert await reaped() == 0


async def test_nobody_is_reaped_who_may_still_wait_or_whose_journal_is_behind(bench, db):
    waiting = await bench.admit(10_000)
    assert await reaped() == 0  # no root is known
    drained()
    await older(bench, waiting, 15)  # of the 30 s that a turn may be waited for
    assert await reaped() == 0
    await older(bench, waiting, 60)
    drained(ago_s=100)
    assert await reaped() == 0
    drained()
    assert await reaped() == 1


async def test_a_stream_of_ten_minutes_is_let_alone_until_its_journal_is_taken_in(bench, db):
    """Its ADMIT keeps its segment on disk, and that the watermark."""
    stream = await bench.admit(10_000)
    await older(bench, stream, RESERVATION_TTL_S - 60)
    drained(ago_s=RESERVATION_TTL_S - 30)
    assert await reaped() == 0
    assert len(await bench.reservations()) == 1


async def test_what_is_no_reservation_holds_up_nothing(bench, db):
    good = await bench.admit(10_000)
    await older(bench, good, ALLOWED_S + 1)
    spoilt = admission_keys.reservation(good.policy.tenant_id, good.request_id)
    await bench.server.set(spoilt, "spoilt", ex=10)
    await bench.server.set("mp:{x}:reservation:y", "strange", ex=10)
    drained()
    assert await reaped() == 1
    assert len(await bench.reservations()) == 2


async def test_redis_away_is_asked_again_later(bench, db, settings):
    left = await bench.admit(10_000)
    await older(bench, left, ALLOWED_S + 1)
    drained()
    url = settings.ADMISSION_REDIS_URL
    settings.ADMISSION_REDIS_URL = "redis://127.0.0.1:9/0"
    assert await reaped() == 0
    settings.ADMISSION_REDIS_URL = url
    assert await reaped() == 1
