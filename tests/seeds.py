"""The seed of a random test: another each time, printed, and the one in `METERPLANE_SEED` if set.

So a run that found something is repeated: `METERPLANE_SEED=<what it printed> pytest ...`.
"""

import os
import random

VARIABLE = "METERPLANE_SEED"


def drawn_seed() -> int:
    """For one test; call it in there."""
    told = os.environ.get(VARIABLE)
    seed = int(told) if told else random.SystemRandom().randrange(2**32)
    print(f"{VARIABLE}={seed}")
    return seed
