"""A block whose gateway died before it was credited reaches its pool; rows of grants stay few."""

import pytest
import redis as redis_client

from meterplane.contracts import admission_keys, reservations
from meterplane.kernel.ids import uuid7
from meterplane.policy.grants import credit_uncredited, fold_grants, pool_of
from tests.policy.test_budget_grants import WINDOW, admin, take

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def admission(redis_url):
    with redis_client.Redis.from_url(redis_url) as connection:
        yield connection


def older(seconds):
    with admin() as connection:
        connection.execute(
            "UPDATE budget_grant SET granted_at = granted_at - make_interval(secs => %s)",
            (seconds,),
        )


def rows():
    with admin() as connection:
        return connection.execute(
            'SELECT epoch, "window", amount_nano, credited FROM budget_grant ORDER BY 1, 2, 3'
        ).fetchall()


def pool(admission, tenant):
    key = pool_of(tenant.id, "organisation", tenant.id, "", WINDOW)
    return {name.decode(): int(value) for name, value in admission.hgetall(key).items()}


def credit(admission, tenant, grant_id, taken):
    keys, arguments = reservations.credit_call(
        tenant.id,
        pool_of(tenant.id, "organisation", tenant.id, "", WINDOW),
        "one",
        grant_id,
        reservations.Granted(taken.block, taken.granted, taken.revision),
    )
    return admission.eval(reservations.CREDIT, len(keys), *keys, *arguments)


def test_a_grant_nobody_credited_is_credited_once(organisation, admission):
    admission.set(admission_keys.epoch(organisation.id), "one")
    first, second = uuid7(), uuid7()
    credit(admission, organisation, first, take(organisation.id, 1000, 100, grant_id=first))
    lost = take(organisation.id, 1000, 200, grant_id=second)
    assert credit_uncredited() == 0  # its gateway may still be at it
    assert pool(admission, organisation)["left"] == 100
    older(5)
    assert credit_uncredited() == 1
    assert pool(admission, organisation) == {
        "left": 300, "credited": 300, "granted": 300, "revision": 2,
    }  # fmt: skip
    assert credit(admission, organisation, second, lost) == 0  # the gateway, at last
    assert credit_uncredited() == 0
    assert pool(admission, organisation)["left"] == 300
    assert [row[3] for row in rows()] == [True, True]


def test_a_grant_of_an_epoch_that_is_over_reaches_no_pool(organisation, admission):
    take(organisation.id, 1000, 100, epoch="one")
    admission.set(admission_keys.epoch(organisation.id), "two")
    older(5)
    assert credit_uncredited() == 0
    assert pool(admission, organisation) == {}


def test_redis_that_is_away_is_asked_again(organisation, admission, settings):
    admission.set(admission_keys.epoch(organisation.id), "one")
    take(organisation.id, 1000, 100)
    older(5)
    url = settings.ADMISSION_REDIS_URL
    settings.ADMISSION_REDIS_URL = "redis://127.0.0.1:9/0"
    assert credit_uncredited() == 0
    assert [row[3] for row in rows()] == [False]
    settings.ADMISSION_REDIS_URL = url
    assert credit_uncredited() == 1


def test_a_grant_redis_may_have_forgotten_is_not_credited_again(organisation, admission):
    admission.set(admission_keys.epoch(organisation.id), "one")
    take(organisation.id, 1000, 100)
    older(reservations.POOL_KEEP_S // 2 + 60)
    assert credit_uncredited() == 0
    assert pool(admission, organisation) == {}


def test_old_grants_of_a_window_and_epoch_become_one_row_of_their_sum(organisation, admission):
    admission.set(admission_keys.epoch(organisation.id), "one")
    for epoch, window in (("one", WINDOW), ("one", "lifetime"), ("two", WINDOW)):
        for needed in (100, 200, 300):
            take(organisation.id, 100_000, needed, epoch=epoch, window=window)
    blocks = {}
    for epoch, window, nano, _ in rows():
        blocks[epoch, window] = blocks.get((epoch, window), 0) + nano
    older(5)
    credit_uncredited()
    fold_grants()
    assert len(rows()) == 9  # none is an hour old
    older(3600)
    fresh = take(organisation.id, 100_000, 50, epoch="one", window="lifetime").block
    fold_grants()
    fold_grants()
    assert rows() == sorted(
        [(epoch, window, nano, True) for (epoch, window), nano in blocks.items()]
        + [("one", "lifetime", fresh, False)]
    )


def test_grants_of_windows_long_over_are_forgotten_and_endless_ones_are_not(organisation):
    for window in (WINDOW, "2026-W48", "2026-11-29", "lifetime", "prepaid"):
        take(organisation.id, 1000, 10, window=window)
    older(46 * 86_400)
    fold_grants()
    assert [window for _, window, _, _ in rows()] == ["lifetime", "prepaid"]
