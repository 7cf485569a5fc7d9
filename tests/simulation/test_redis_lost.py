"""Eight workers spend a budget while their Redis is killed, emptied, stalled and restarted.

Never is more served than the budget holds. What was granted to a Redis that is gone returns once
what was admitted there is taken in, and then the rest is spent to the last unit.
"""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest
import redis as redis_client

from meterplane.metering.ingest import ingest_segment
from meterplane.policy.grants import credit_uncredited
from meterplane.policy.stranded import return_stranded
from meterplane.stack.embedded import redis as embedded
from tests import environment
from tests.conftest import spawn, wait_until
from tests.metering.segments import message, settle
from tests.policy.test_stranded_grants import drained
from tests.simulation.crew import WORKERS, crew
from tests.simulation.worker import Done, Job

UNIT_NANO = 1_000
STALL_S = 0.5
BACK_WITHIN_S = 30
LEVELS = ("key", "project", "organisation")


class FragileRedis:
    """An admission Redis of a test's own, that can be hurt."""

    def __init__(self, folder: Path) -> None:
        self._home = folder / "redis"
        self._log = folder / "redis.log"
        self.url = embedded.url(self._home, environment.REDIS_PASSWORD)
        self.hurt: Counter[str] = Counter()
        self.start()

    def start(self) -> None:
        command = embedded.redis_command(
            self._home, role="admission", password=environment.REDIS_PASSWORD
        )
        self.process = spawn(command, self._log)
        wait_until(lambda: embedded.is_ready(self.url), "the fragile Redis answering")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.start()

    def restart(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.start()

    def flush(self) -> None:
        with redis_client.Redis.from_url(self.url) as client:
            client.flushall()

    def stall(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)
        time.sleep(STALL_S)
        os.kill(self.process.pid, signal.SIGCONT)

    def hurt_at_random(self, chance: random.Random, until: threading.Event) -> None:
        """Again and again, each way."""
        while not until.wait(chance.uniform(0.1, 1.0)):
            way = chance.choice(("kill", "restart", "flush", "stall"))
            self.hurt[way] += 1
            getattr(self, way)()


@pytest.fixture
def fragile(tmp_path, settings):
    server = FragileRedis(tmp_path)
    settings.ADMISSION_REDIS_URL = server.url
    yield server
    server.process.kill()
    server.process.wait()


def take_in(organisation, done: Done) -> None:
    """What was served, as the journals would tell it; and nothing else is open."""
    events = [
        settle(organisation, epoch=epoch, cost_nano=cost, reserved_nano=cost)
        for _, cost, epoch in done.settled
    ]
    if events:
        ingest_segment(message(events))
    drained()


def stranded_blocks(organisation, served: Sequence[tuple[float, int, str]]) -> dict[str, float]:
    """Of each epoch, what was granted to it and not spent there, in its largest blocks."""
    with psycopg.connect(environment.database_url("postgres")) as admin:
        rows = admin.execute(
            "SELECT epoch, sum(amount_nano)::bigint, max(amount_nano) FROM budget_grant"
            " WHERE tenant_id = %s AND level = 'organisation' GROUP BY 1",
            (organisation.id,),
        ).fetchall()
    spent: Counter[str] = Counter()
    for _, cost, epoch in served:
        spent[epoch] += cost
    return {epoch: (granted - spent[epoch]) / most for epoch, granted, most in rows}


def lose_and_spend(spender, fragile, seed: int, fits: int) -> None:
    chance = random.Random(seed)
    limit_nano = fits * UNIT_NANO + chance.randrange(UNIT_NANO)
    found = spender(f"seed-{seed}", **dict.fromkeys(LEVELS, limit_nano))
    organisation = found.organisation
    asked = {"digest": found.digest, "reserved_nano": (UNIT_NANO, UNIT_NANO), "lasts_s": 0.3}
    with crew(ADMISSION_REDIS_URL=fragile.url, ADMISSION_TIMEOUT_MS="250") as workers:
        over = threading.Event()
        hurting = threading.Thread(target=fragile.hurt_at_random, args=(chance, over))
        hurting.start()
        try:
            done = workers.do(Job(requests=2 * fits, seed=seed, give_up_s=4, at_once=10, **asked))
        finally:
            over.set()
            hurting.join()
        served = len(done.settled)
        stranded = stranded_blocks(organisation, done.settled)
        print(
            f"seed {seed}: Redis {dict(fragile.hurt)}; {served} of {fits} served, told"
            f" {dict(done.told)}; unspent blocks of each epoch"
            f" {[round(blocks, 2) for blocks in stranded.values()]}"
        )
        assert served <= fits
        # A block that was just taken, and of the one before less than a request.
        assert all(0 <= blocks < 2 for blocks in stranded.values())
        began = time.monotonic()
        while served < fits and time.monotonic() < began + 4 * BACK_WITHIN_S:
            take_in(organisation, done)
            credit_uncredited()
            returned = return_stranded()
            done = workers.do(
                Job(requests=fits - served + WORKERS, seed=seed, give_up_s=3, at_once=100, **asked)
            )
            served += len(done.settled)
            assert served <= fits
            print(
                f"  {returned} epochs returned, {served} served, {time.monotonic() - began:.1f} s"
            )
        assert served == fits, "what was stranded did not come back"


@pytest.mark.long
@pytest.mark.timeout(300)
def test_no_loss_of_redis_overspends_and_all_of_the_budget_comes_back(spender, fragile):
    lose_and_spend(spender, fragile, random.randrange(2**32), 300)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(20))
def test_twenty_budgets_survive_a_redis_that_does_not(spender, fragile, seed):
    lose_and_spend(spender, fragile, seed, 1_000)
