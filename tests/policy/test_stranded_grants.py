"""What a lost Redis had been granted returns to its budget: exactly, once, and on evidence only."""

import random
import threading
from datetime import timedelta

import pytest
import redis as redis_client
from django.db import connections

from meterplane.contracts import admission_keys, reservations, windows
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from meterplane.metering.ingest import ingest_segment
from meterplane.policy import grants
from meterplane.policy.stranded import return_stranded
from tenants.models import ApiKey
from tenants.rotate import rotate_key
from tenants.scoping import tenant_scope
from tests.conftest import wait_until
from tests.metering.segments import message, settle
from tests.policy.test_budget_grants import admin, gateway, take

pytestmark = pytest.mark.django_db(transaction=True)

LIMIT = 1_000_000


def month() -> str:
    return windows.label("month", clock.now())


@pytest.fixture
def admission(redis_url):
    with redis_client.Redis.from_url(redis_url) as connection:
        yield connection


def open_epoch(admission, tenant, epoch):
    """A fresh Redis, in which a gateway opened this epoch."""
    admission.flushall()
    admission.set(admission_keys.epoch(tenant.id), epoch)


def spend(tenant, epoch, nano, **changes):
    event = settle(tenant, epoch=epoch, cost_nano=nano, reserved_nano=nano, **changes)
    ingest_segment(message([event]))


def drained(seconds=60.0, root=None):
    """A root that is drained up to so long after the last epoch was first seen."""
    with admin() as connection:
        connection.execute(
            "INSERT INTO journal_watermark AS w"
            " SELECT %s, 'test', COALESCE(max(first_seen_at), now()) + make_interval(secs => %s),"
            "        clock_timestamp()"
            "   FROM budget_epoch"
            " ON CONFLICT (root) DO UPDATE SET drained_until = excluded.drained_until",
            (root or uuid7(), seconds),
        )


def windows_of(tenant):
    with admin() as connection:
        return dict(
            connection.execute(
                'SELECT "window", granted_nano FROM budget_window WHERE tenant_id = %s',
                (tenant.id,),
            ).fetchall()
        )


def granted(tenant):
    (nano,) = windows_of(tenant).values()
    return nano


def grants_left(tenant):
    with admin() as connection:
        return connection.execute(
            "SELECT epoch, sum(amount_nano)::bigint FROM budget_grant WHERE tenant_id = %s"
            " GROUP BY 1 ORDER BY 1",
            (tenant.id,),
        ).fetchall()


def take_here(tenant, needed, epoch, **changes):
    return take(tenant.id, LIMIT, needed, epoch=epoch, window=month(), **changes)


def test_what_was_not_spent_returns_and_what_is_granted_now_stays(organisation, admission):
    open_epoch(admission, organisation, "one")
    take_here(organisation, 700_000, "one")
    spend(organisation, "one", 123_457)
    open_epoch(admission, organisation, "two")
    assert take_here(organisation, 300_001, "two").stranded
    assert take_here(organisation, 100_000, "two").block == 100_000
    drained()
    assert return_stranded() == 1
    assert granted(organisation) == 123_457 + 100_000
    assert grants_left(organisation) == [("two", 100_000)]
    rest = LIMIT - 123_457 - 100_000
    assert take_here(organisation, rest + 1, "two").stranded is False
    assert take_here(organisation, rest, "two").block == rest
    assert granted(organisation) == LIMIT


def test_it_returns_once_however_often_and_by_however_many_it_is_asked(organisation, admission):
    open_epoch(admission, organisation, "one")
    take_here(organisation, 500_000, "one")
    spend(organisation, "one", 1)
    open_epoch(admission, organisation, "two")
    take_here(organisation, 10, "two")
    drained()
    before = granted(organisation)
    done = []

    def ask() -> None:
        done.append(return_stranded())
        connections.close_all()

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [0, 0, 0, 0, 0, 1]
    assert return_stranded() == 0
    assert granted(organisation) == before - 499_999


def test_nothing_returns_before_every_root_is_drained_past_the_margin(organisation, admission):
    open_epoch(admission, organisation, "one")
    take_here(organisation, 500_000, "one")
    open_epoch(admission, organisation, "two")
    take_here(organisation, 10, "two")
    before = granted(organisation)
    slow = uuid7()
    assert return_stranded() == 0  # no root is known at all
    drained()
    drained(5, slow)
    assert return_stranded() == 0
    assert granted(organisation) == before
    drained(5.001, slow)
    assert return_stranded() == 1


def test_no_epoch_is_over_before_a_gateway_was_seen_in_the_one_redis_knows(organisation, admission):
    open_epoch(admission, organisation, "one")
    take_here(organisation, 500_000, "one")
    drained()
    assert return_stranded() == 0
    take_here(organisation, 1000, "two")
    drained()
    before = granted(organisation)
    # Lost, and nobody came since. Or somebody else's Redis: whatever lives may live on elsewhere.
    admission.flushall()
    assert return_stranded() == 0
    admission.set(admission_keys.epoch(organisation.id), "never seen")
    assert return_stranded() == 0
    assert granted(organisation) == before
    admission.set(admission_keys.epoch(organisation.id), "two")
    assert return_stranded() == 1


def test_a_grant_that_was_written_down_late_returns_too(organisation, admission):
    """Its gateway asked in an epoch that was over by then: seen after the one that followed."""
    open_epoch(admission, organisation, "two")
    take_here(organisation, 10, "two")
    late = take_here(organisation, 500_000, "one")
    assert late.block == 500_000
    drained()
    assert return_stranded() == 1
    assert [epoch for epoch, _ in grants_left(organisation)] == ["two"]
    assert take_here(organisation, 10, "one").block == 0
    assert granted(organisation) == sum(nano for _, nano in grants_left(organisation))


def test_several_lost_lives_return_each_by_its_own_spending(organisation, admission):
    for number, epoch in enumerate(["one", "two", "three"]):
        open_epoch(admission, organisation, epoch)
        take_here(organisation, 200_000, epoch)
        spend(organisation, epoch, 1000 * (number + 1))
    drained()
    assert return_stranded() == 2
    assert granted(organisation) == 1000 + 2000 + 200_000


def test_each_level_and_window_gets_back_its_own(onboard, admission):
    tenant, other = onboard("acme"), onboard("other")
    with tenant_scope(tenant.id):
        key = ApiKey.objects.get(id=tenant.key_id)
    scopes = {
        "organisation": (tenant.id, ""),
        "project": (tenant.project_id, ""),
        "key": (key.limits_scope_id or key.id, ""),
        "key_model": (key.limits_scope_id or key.id, "large"),
    }
    labels = [windows.label(each, clock.now()) for each in ("day", "week", "month")]
    for organisation in (tenant, other):
        open_epoch(admission, organisation, "one")
    for level, (scope_id, model) in scopes.items():
        for label in (*labels, "lifetime", "prepaid"):
            assert take(
                tenant.id, LIMIT, 500_000, level=level, scope_id=scope_id, model=model,
                window=label, epoch="one",
            ).block == 500_000  # fmt: skip
    take(other.id, LIMIT, 500_000, epoch="one", window=month())
    spend(tenant, "one", 7, model="large")
    spend(tenant, "one", 80, model="large-canary", requested_model="large")
    spend(tenant, "one", 900, model="small")
    spend(tenant, "another life", 5000, model="large")
    open_epoch(admission, tenant, "two")
    take(tenant.id, LIMIT, 1, epoch="two", window="elsewhere")
    drained()
    assert return_stranded() == 1
    with admin() as connection:
        left = connection.execute(
            "SELECT level, granted_nano, count(*) FROM budget_window"
            " WHERE tenant_id = %s AND \"window\" <> 'elsewhere' GROUP BY 1, 2 ORDER BY 1",
            (tenant.id,),
        ).fetchall()
    assert left == [
        ("key", 987, 5), ("key_model", 87, 5), ("organisation", 987, 5), ("project", 987, 5),
    ]  # fmt: skip
    assert granted(other) == 500_000


def test_a_key_and_its_successor_spend_from_one_budget(organisation, admission):
    open_epoch(admission, organisation, "one")
    with tenant_scope(organisation.id):
        key = ApiKey.objects.get(id=organisation.key_id)
    scope_id = key.limits_scope_id or key.id
    take(organisation.id, LIMIT, 500_000, level="key", scope_id=scope_id, epoch="one",
         window="lifetime")  # fmt: skip
    successor = rotate_key(tenant_id=organisation.id, key_id=organisation.key_id).key
    spend(organisation, "one", 30)
    spend(organisation, "one", 4, key_id=successor.id)
    open_epoch(admission, organisation, "two")
    take(organisation.id, LIMIT, 1, epoch="two", window="lifetime")
    drained()
    assert return_stranded() == 1
    with admin() as connection:
        assert connection.execute(
            "SELECT granted_nano FROM budget_window WHERE level = 'key'"
        ).fetchall() == [(34,)]


def test_days_before_a_limit_was_set_were_not_spent_under_it(organisation, admission):
    open_epoch(admission, organisation, "one")
    days_ago = clock.to_ms(clock.now() - timedelta(days=3))
    spend(organisation, "one", 400_000, at_ms=days_ago)
    take(organisation.id, LIMIT, 100_000, epoch="one", window="prepaid")
    spend(organisation, "one", 60_000)
    open_epoch(admission, organisation, "two")
    take(organisation.id, LIMIT, 1, epoch="two", window="lifetime")
    drained()
    assert return_stranded() == 1
    assert windows_of(organisation)["prepaid"] == 60_000


def test_more_spent_than_granted_returns_nothing_and_says_so(organisation, admission, caplog):
    open_epoch(admission, organisation, "one")
    take_here(organisation, 100_000, "one")
    spend(organisation, "one", 100_001)
    open_epoch(admission, organisation, "two")
    take_here(organisation, 10, "two")
    drained()
    before = granted(organisation)
    assert return_stranded() == 1
    assert granted(organisation) == before
    assert "100001 spent of 100000 granted" in caplog.text


def test_a_pool_is_told_what_is_granted_now(organisation, admission):
    open_epoch(admission, organisation, "one")
    take_here(organisation, 500_000, "one")
    open_epoch(admission, organisation, "two")
    taken = take_here(organisation, 20_000, "two")
    pool = grants.pool_of(organisation.id, "organisation", organisation.id, "", month())
    keys, arguments = reservations.credit_call(
        organisation.id, pool, "two", uuid7(),
        reservations.Granted(taken.block, taken.granted, taken.revision),
    )  # fmt: skip
    admission.eval(reservations.CREDIT, len(keys), *keys, *arguments)
    drained()
    assert return_stranded() == 1
    told = {name.decode(): int(value) for name, value in admission.hgetall(pool).items()}
    assert told == {
        "left": taken.block,
        "credited": taken.block,
        "granted": taken.block,
        "revision": taken.revision + 1,
    }


def test_redis_away_is_asked_again_later(organisation, admission, monkeypatch, settings):
    open_epoch(admission, organisation, "one")
    take_here(organisation, 500_000, "one")
    open_epoch(admission, organisation, "two")
    take_here(organisation, 10, "two")
    drained()
    url = settings.ADMISSION_REDIS_URL
    settings.ADMISSION_REDIS_URL = "redis://127.0.0.1:9/0"
    assert return_stranded() == 0
    settings.ADMISSION_REDIS_URL = url
    assert return_stranded() == 1


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.long) for seed in (2, 3, 4))]
)
def test_through_any_history_granted_is_what_was_spent_and_what_lives(
    organisation, admission, seed
):
    """Seeded: grants, spending within them, lost lives, returns. An oracle of two sums decides."""
    chance = random.Random(seed)
    settled: dict[str, int] = {}
    pools: dict[str, int] = {}
    number, epoch = 0, "e0"
    open_epoch(admission, organisation, epoch)
    for _ in range(60):
        act = chance.random()
        if act < 0.45:
            taken = take_here(organisation, chance.randrange(1, 40_000), epoch)
            pools[epoch] = pools.get(epoch, 0) + taken.block
        elif act < 0.8:
            cost = chance.randrange(0, pools.get(epoch, 0) + 1)
            pools[epoch] = pools.get(epoch, 0) - cost
            settled[epoch] = settled.get(epoch, 0) + cost
            spend(organisation, epoch, cost)
        elif act < 0.9:
            number += 1
            epoch = f"e{number}"
            open_epoch(admission, organisation, epoch)
        else:
            drained()
            return_stranded()
            assert sum(settled.values()) <= granted_or_none(organisation) <= LIMIT
    take_here(organisation, 1, epoch)
    drained()
    return_stranded()
    live = dict(grants_left(organisation)).get(epoch, 0)
    past = sum(nano for name, nano in settled.items() if name != epoch)
    assert granted_or_none(organisation) == past + live <= LIMIT


def granted_or_none(tenant):
    return sum(windows_of(tenant).values())


def test_takes_that_race_with_the_return_are_granted_or_refused_never_both(organisation, admission):
    """Whoever asks in the old epoch just now is counted in its account, or gets nothing."""
    for round_ in range(10):
        old, new = f"{round_} old", f"{round_} new"
        open_epoch(admission, organisation, old)
        take_here(organisation, 1000, old)
        open_epoch(admission, organisation, new)
        take_here(organisation, 1000, new)
        drained()
        blocks = []

        def ask(old=old, blocks=blocks) -> None:
            with gateway() as connection:
                blocks.extend(
                    take_here(organisation, 500, old, connection=connection).block
                    for _ in range(20)
                )

        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: return_stranded() > 0, "the account")
        thread.join()
        live = dict(grants_left(organisation))
        assert set(live) == {new}
        assert granted(organisation) == live[new]
