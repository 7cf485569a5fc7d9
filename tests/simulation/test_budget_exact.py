"""Budgets of three nested scopes, and far more requests at once than they have money for.

Eight workers share nothing but PostgreSQL and Redis. A caller that is told to come back does.
"""

import random

import psycopg
import pytest
import redis

from tests import environment
from tests.simulation.worker import Done, Job

UNIT_NANO = 1_000
LEVELS = ("key", "project", "organisation")


def amounts(chance: random.Random, binding_nano: int) -> dict[str, int]:
    """One level binds, by the seed; the others have more, as nested scopes need not have."""
    binding = chance.choice(LEVELS)
    return {
        level: binding_nano if level == binding else binding_nano + chance.randrange(1, 10**6)
        for level in LEVELS
    }


def unjustified(done: Done, limit_nano: int) -> list[tuple[float, int]]:
    """Who was told that nothing is left, and it was, once whatever others held came back.

    All that anybody had begun to settle by then counts as spent, so that nobody is accused whom
    another worker's settlement could have refused.
    """
    wrong, spent, at = [], 0, 0
    for when, worst_nano in done.refused:
        while at < len(done.settled) and done.settled[at][0] <= when:
            spent += done.settled[at][1]
            at += 1
        if worst_nano <= limit_nano - spent:
            wrong.append((when - done.began, worst_nano))
    return wrong


def granted_most(tenant_id) -> int:
    with psycopg.connect(environment.database_url("postgres")) as admin:
        row = admin.execute(
            "SELECT max(granted_nano - limit_nano) FROM budget_window WHERE tenant_id = %s",
            (tenant_id,),
        ).fetchone()
    assert row is not None
    return row[0]


def nothing_is_held(redis_url: str) -> bool:
    with redis.Redis.from_url(redis_url) as admission:
        return not admission.keys("*reservation*")


def run(workers, spender, redis_url, seed, fits, requests, **job) -> tuple[Done, int]:
    """Requests at once on a budget for `fits` units; what came of it, and the budget."""
    chance = random.Random(seed)
    limit_nano = fits * UNIT_NANO + chance.randrange(UNIT_NANO)
    found = spender(f"seed-{seed}", **amounts(chance, limit_nano))
    done = workers.do(Job(digest=found.digest, requests=requests, seed=seed, **job))
    spent = sum(cost for _, cost, _ in done.settled)
    print(
        f"seed {seed}: {len(done.settled)} of {requests} served, {spent} of {limit_nano} nano,"
        f" {len(done.refused)} refused, told {dict(done.told)},"
        f" {done.ended - done.began:.1f} s"
    )
    assert done.gave_up == 0, "somebody was told to come back for a minute"
    assert done.owed == 0
    assert spent <= limit_nano
    assert granted_most(found.organisation.id) <= 0
    assert unjustified(done, limit_nano) == []
    assert nothing_is_held(redis_url)
    return done, limit_nano


def fixed(workers, spender, redis_url, seed, fits, requests):
    """Every request costs a unit: exactly as many as fit are served."""
    done, _ = run(
        workers, spender, redis_url, seed, fits, requests, reserved_nano=(UNIT_NANO, UNIT_NANO)
    )
    assert len(done.settled) == fits


def variable(workers, spender, redis_url, seed, fits, requests):
    """Requests cost less than they reserve: nobody is refused for whom there was room."""
    done, limit_nano = run(
        workers,
        spender,
        redis_url,
        seed,
        fits,
        requests,
        reserved_nano=(UNIT_NANO // 2, 4 * UNIT_NANO),
        cost_share=0.2,
    )
    rest = limit_nano - sum(cost for _, cost, _ in done.settled)
    assert rest < min(worst for _, worst in done.refused)


@pytest.mark.parametrize("costs", [fixed, variable], ids=["fixed", "variable"])
def test_a_budget_for_n_serves_n_of_ten_times_as_many(workers, spender, redis_url, costs):
    for _ in range(2):
        seed = random.randrange(2**32)
        costs(workers, spender, redis_url, seed, 100, 1_000)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("ten", range(10))
@pytest.mark.parametrize("costs", [fixed, variable], ids=["fixed", "variable"])
def test_a_budget_for_a_thousand_over_a_hundred_seeds(workers, spender, redis_url, costs, ten):
    for seed in range(10 * ten, 10 * ten + 10):
        costs(workers, spender, redis_url, seed, 1_000, 10_000)
