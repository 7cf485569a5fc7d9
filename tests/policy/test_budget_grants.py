"""`take_budget`: blocks that can never add up to more than the limit."""

import threading

import psycopg
import pytest

from meterplane.kernel.ids import uuid7
from tests import environment

WINDOW = "2026-11"


def take(tenant_id, limit, needed, block, scope_id=None):
    with psycopg.connect(
        environment.database_url("meterplane_gateway"), autocommit=True
    ) as gateway:
        row = gateway.execute(
            "SELECT take_budget(%s, 'organisation', %s, %s, %s, %s, %s)",
            (tenant_id, scope_id or tenant_id, WINDOW, limit, needed, block),
        ).fetchone()
    return row[0]


@pytest.mark.django_db(transaction=True)
def test_blocks_shrink_until_the_limit_is_reached_exactly(organisation):
    granted = [take(organisation.id, 100, 7, 40) for _ in range(5)]
    assert granted == [40, 40, 20, 0, 0]


@pytest.mark.django_db(transaction=True)
def test_a_request_larger_than_the_block_gets_what_it_needs(organisation):
    assert take(organisation.id, 100, 60, 10) == 60
    assert take(organisation.id, 100, 41, 10) == 0
    assert take(organisation.id, 100, 40, 10) == 40


@pytest.mark.django_db(transaction=True)
def test_a_lowered_limit_grants_nothing_more_and_a_raised_one_does(organisation):
    assert take(organisation.id, 100, 1, 80) == 80
    assert take(organisation.id, 50, 1, 10) == 0
    assert take(organisation.id, 200, 1, 1000) == 120


@pytest.mark.django_db(transaction=True)
def test_eight_gateways_racing_never_take_more_than_the_limit(organisation):
    taken: list[int] = []

    def race() -> None:
        taken.extend(take(organisation.id, 1000, 3, 17) for _ in range(20))

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) <= 1000
    assert 1000 - sum(taken) < 3


@pytest.mark.django_db(transaction=True)
def test_scopes_and_windows_have_their_own_limits(organisation):
    assert take(organisation.id, 10, 1, 10) == 10
    assert take(organisation.id, 10, 1, 10, scope_id=uuid7()) == 10
