"""How long a caller says it waits for an answer: `x-request-timeout-ms`; over gRPC the deadline.

Only where a model is busy anyone looks at it: who would wait in vain is told at once.
"""

import math
import time

from meterplane.kernel.errors import CallerError

HEADER = b"x-request-timeout-ms"
DIGITS_MAX = 9  # eleven days


def of(headers: dict[bytes, bytes], received_at: float) -> float:
    """Seconds from now; infinite where nothing is said. Raises `CallerError` 400."""
    said = headers.get(HEADER)
    if said is None:
        return math.inf
    if not said.isdigit() or len(said) > DIGITS_MAX:
        raise CallerError(
            "invalid_header", "X-Request-Timeout-Ms is not a number of milliseconds; correct it."
        )
    return int(said) / 1000 - (time.monotonic() - received_at)


def until(deadline_s: float | None) -> float:
    """Seconds from now to a gRPC deadline; infinite where there is none."""
    return math.inf if deadline_s is None else deadline_s
