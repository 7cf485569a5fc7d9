"""Rates under workers that ask without a pause: never more than the rate allows.

The time is that between the first call and the last answer, so that nothing hides in it. How much
of the rate was used says how often the callers came: it is printed, and no test's affair.
"""

import pytest

from tenants.limits import set_limit
from tests.simulation.worker import Job

CALLERS = 64  # of all workers together
OVER_MOST = 0.001


def hammer(workers, found, per_second: int, burst: int, seconds: float) -> float:
    """What was admitted, as a part of what may have been."""
    set_limit(
        tenant_id=found.organisation.id, level="organisation", scope_id=found.organisation.id,
        kind="requests", window="second", amount=per_second, burst=burst,
    )  # fmt: skip
    done = workers.do(Job(digest=found.digest, requests=CALLERS, seed=0, hammer_s=seconds))
    took_s = done.ended - done.began
    allowed = per_second * took_s + burst
    admitted = len(done.settled)
    asked = admitted + sum(done.told.values())
    print(
        f"{per_second}/s, burst {burst}: {admitted} of {asked} in {took_s:.3f} s;"
        f" allowed {allowed:.1f}, {admitted / allowed:.2%} of it"
    )
    # A Redis that was not given a processor for a quarter of a second admits nobody meanwhile.
    assert done.told.keys() <= {"rate_limit_exceeded", "admission_unavailable"}, done.told
    assert admitted <= allowed * (1 + OVER_MOST)
    assert admitted >= burst
    return admitted / allowed


def test_eight_workers_that_hammer_are_held_to_the_rate(workers, spender):
    hammer(workers, spender("hammer"), 500, 50, 2.0)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("per_second", [50, 77, 333, 1000, 5000])
@pytest.mark.parametrize("bursts", [False, True])
def test_rates_from_fifty_to_five_thousand_are_exact(workers, spender, per_second, bursts):
    burst = per_second if bursts else 1
    hammer(workers, spender("hammer"), per_second, burst, 10.0)
