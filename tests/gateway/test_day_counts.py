"""Quotas of a day in a Redis that is lost: they go on from what was metered of the day."""

import psycopg
import pytest
import redis
from django.db import connections

from meterplane.metering import ship
from meterplane.metering.ingest import ingest_segments
from tenants.limits import set_limit
from tests import environment
from tests.conftest import wait_until
from tests.gateway.test_budgets import CHAT, INFER

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def gateway(start_gateway, triton):
    return start_gateway(triton.http_url)


@pytest.fixture
def take_in(gateway):
    """Until so many events of a tenant were taken in."""
    shipper = ship.Shipper(gateway.journal, send=ingest_segments)

    def until(tenant, events):
        def taken_in():
            shipper.step()
            with psycopg.connect(environment.database_url("postgres")) as admin:
                return admin.execute(
                    "SELECT count(*) FROM usage_event WHERE tenant_id = %s", (tenant.id,)
                ).fetchone() == (events,)

        wait_until(taken_in, f"{events} events")

    return until


def limit_day(tenant, level, scope_id, kind, amount, model=""):
    set_limit(
        tenant_id=tenant.id, level=level, scope_id=scope_id, kind=kind, window="day",
        amount=amount, model=model,
    )  # fmt: skip
    connections.close_all()


def forget_everything(redis_url):
    with redis.Redis.from_url(redis_url) as admission:
        admission.flushall()


@pytest.mark.parametrize("level", ["project", "key_model"])
def test_as_many_requests_are_served_as_the_day_has(gateway, acme, redis_url, take_in, level):
    scope_id = acme.project_id if level == "project" else acme.key_id
    limit_day(
        acme, level, scope_id, "requests", 6, model="identity" if level == "key_model" else ""
    )
    statuses = []
    with gateway.client(acme.secret) as client:
        for _ in range(9):
            if len(statuses) in (2, 5):
                take_in(acme, len(statuses))
                forget_everything(redis_url)
            statuses.append(client.post(INFER[0], json=INFER[1]).status_code)
    assert statuses == [200] * 6 + [429] * 3


def test_tokens_of_the_day_are_what_was_metered_of_it(gateway, acme, redis_url, take_in):
    limit_day(acme, "key", acme.key_id, "output_tokens", 1000)
    limit_day(acme, "organisation", acme.id, "total_tokens", 200_000)  # never what is told of
    with gateway.client(acme.secret) as client:

        def left():
            answer = client.post(CHAT[0], json=CHAT[1])
            assert answer.status_code == 200
            used = answer.json()["usage"]
            return used, answer.headers["x-ratelimit-remaining-tokens"]

        used, _ = left()
        take_in(acme, 1)
        forget_everything(redis_url)
        again, told = left()
    # What is left is told as it was when the request was let in, at its most.
    assert int(told) == 1000 - used["completion_tokens"] - CHAT[1]["max_tokens"]
    with redis.Redis.from_url(redis_url) as admission:
        (key,) = admission.keys(f"*{acme.id}*total_tokens:day*")
        total = used["total_tokens"] + again["total_tokens"]
        wait_until(lambda: int(admission.get(key)) == total, "the second being settled")


def test_a_limit_of_today_counts_all_of_today(gateway, acme, take_in):
    with gateway.client(acme.secret) as client:
        assert client.post(INFER[0], json=INFER[1]).status_code == 200
        take_in(acme, 1)
        limit_day(acme, "key", acme.key_id, "requests", 2)
        statuses = [client.post(INFER[0], json=INFER[1]).status_code for _ in range(3)]
    assert statuses == [200, 429, 429]
