"""Requests that end in every way there is, workers that are killed among them: nothing stays held.

The workers write journals as gateways do. The shipper takes them in, those of the killed ones too.
What the events add up to is what the budget lost, to the nano.
"""

import random
import threading
import time
from pathlib import Path

import psycopg
import pytest
import redis

from meterplane.contracts import usage
from meterplane.journal.directory import list_directories
from meterplane.journal.reader import frames_under
from meterplane.metering.ingest import ingest_segment
from meterplane.metering.ship import Shipper
from meterplane.policy.grants import credit_uncredited, pool_of
from tests import environment
from tests.conftest import wait_until
from tests.simulation.crew import WORKERS, Crew, crew
from tests.simulation.worker import Job

LIMIT_NANO = 10**13
LEVELS = ("key", "project", "organisation")
RELEASED_WITHIN_S = 60
TAKEN_IN_WITHIN_S = 600
AVERAGE_NANO = 1_650  # of 0 to 10,000 reserved, 10 to 100 % of it, six times of ten


def kill_some(workers: Crew, chance: random.Random, redis_url: str, pool: str, nano: int) -> None:
    """Half of them, each after so much more was spent: in the middle of everything."""
    with redis.Redis.from_url(redis_url) as client:
        victims = chance.sample(range(WORKERS), WORKERS // 2)
        for number, victim in enumerate(victims, 1):
            while int(client.hget(pool, "spent") or 0) < number * nano:
                time.sleep(0.005)
            workers.processes[victim].kill()


def open_reservations(redis_url: str) -> list[str]:
    with redis.Redis.from_url(redis_url) as client:
        return sorted(key.decode() for key in client.scan_iter("*reservation*", count=1000))


def spent_of_pools(redis_url: str, found) -> set[int]:
    """What was granted and is not left, of each level; granted to pools nobody credited, too."""
    credit_uncredited()
    with psycopg.connect(environment.database_url("postgres")) as admin:
        granted = dict(
            admin.execute(
                "SELECT level, granted_nano FROM budget_window WHERE tenant_id = %s",
                (found.organisation.id,),
            ).fetchall()
        )
    with redis.Redis.from_url(redis_url) as client:
        tenant_id = found.organisation.id
        pools = {
            level: pool_of(tenant_id, level, found.scopes[level], "", "lifetime")
            for level in LEVELS
        }
        return {
            granted[level] - int(client.hget(pool, "left") or 0) for level, pool in pools.items()
        }


def events(tenant_id) -> tuple[int, int]:
    """How many were taken in, and what they cost."""
    with psycopg.connect(environment.database_url("postgres")) as admin:
        row = admin.execute(
            "SELECT count(*), COALESCE(sum(cost_nano), 0)::bigint FROM usage_event"
            " WHERE tenant_id = %s",
            (tenant_id,),
        ).fetchone()
    assert row is not None
    return row


def end_in_every_way(spender, redis_url, journals: Path, seed: int, requests: int) -> None:
    chance = random.Random(seed)
    found = spender(f"seed-{seed}", **dict.fromkeys(LEVELS, LIMIT_NANO))
    job = Job(
        digest=found.digest, requests=requests, seed=seed, reserved_nano=(0, 10_000),
        cost_share=0.1, lasts_s=0.05, at_once=64, cancelled=0.2, failed=0.2, journal=str(journals),
    )  # fmt: skip
    with crew() as workers:
        workers.begin(job)
        # An eighth of what all of it would cost, if none were killed.
        nano = requests * AVERAGE_NANO // WORKERS
        pool = pool_of(found.organisation.id, "key", found.scopes["key"], "", "lifetime")
        killer = threading.Thread(
            target=kill_some, args=(workers, chance, redis_url, pool, nano), daemon=True
        )
        killer.start()
        done = workers.end_of_the_living()
        killer.join()
        workers.finish()
    frames = list(frames_under(journals))
    admits = {f.request_id for f in frames if isinstance(f, usage.Admit)}
    orphans = admits - {f.request_id for f in frames if isinstance(f, usage.Settle)}
    held = len(open_reservations(redis_url))
    began = time.monotonic()
    sent: list[usage.SegmentMessage] = []
    shipper = Shipper(journals, send=sent.extend)

    def given_back() -> bool:
        shipper.step()
        return not open_reservations(redis_url)

    def taken_in() -> bool:
        while sent:
            ingest_segment(sent.pop(0))
        shipper.step()
        return not list_directories(journals)

    wait_until(given_back, "everything being given back", RELEASED_WITHIN_S)
    took_s = time.monotonic() - began
    wait_until(taken_in, "everything being taken in", TAKEN_IN_WITHIN_S)
    count, cost_nano = events(found.organisation.id)
    print(
        f"seed {seed}: {len(admits)} of {requests} admitted, {count} events, {cost_nano} nano;"
        f" {len(done.settled)} settled by who lived; told {dict(done.told)};"
        f" {len(orphans)} never settled and {held} held by the killed,"
        f" none after {took_s:.1f} s"
    )
    assert count == len(admits)
    assert spent_of_pools(redis_url, found) == {cost_nano}


@pytest.mark.long
@pytest.mark.timeout(300)
def test_nothing_is_held_after_two_thousand_endings(spender, redis_url, tmp_path):
    end_in_every_way(spender, redis_url, tmp_path / "journal", random.randrange(2**32), 2_000)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_nothing_is_held_after_two_hundred_thousand_endings(spender, redis_url, tmp_path):
    end_in_every_way(spender, redis_url, tmp_path / "journal", 0, 200_000)
