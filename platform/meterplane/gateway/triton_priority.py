"""What Triton's own scheduler is told of a request, where the model has priority levels there.

Its dynamic batcher serves lower numbers first, from 1 to the model's `priority_levels`; what is
above, or not said, is the model's default level. `timeout` is how long a request may stand in its
queue, in microseconds: what is left of the caller's own deadline, where there is one. It counts on
models whose queue policy has `allow_timeout_override` and a `default_timeout_microseconds` above it
(an override only shortens), when an instance comes to the request. A caller can say neither.
"""

import math
import time

from meterplane.gateway.run import Run
from meterplane.gateway.turns import rank_of

TIMEOUT_US_MAX = 2**62  # of Triton's 64 bits


def scheduling_of(run: Run) -> dict[str, int]:
    """Parameters of the request that is about to be sent; empty where the model has no levels."""
    levels = run.offer.serving.priority_levels
    if not levels:
        return {}
    rank = rank_of(run.plan.tier, run.admission.policy)
    found = {"priority": min(rank + 1, levels)}
    if math.isfinite(run.wanted_by):
        left_us = int((run.wanted_by - time.monotonic()) * 1_000_000)
        found["timeout"] = min(max(1, left_us), TIMEOUT_US_MAX)
    return found
