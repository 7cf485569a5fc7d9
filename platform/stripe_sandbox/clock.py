"""The sandbox's only reading of the time of day: whole Unix seconds, or milliseconds.

Everything else receives the instant as an argument, so tests can choose it.
"""

import time


def now_s() -> int:
    """Unix seconds, as Stripe writes instants."""
    return int(time.time())


def now_ms() -> int:
    """Unix milliseconds, for the schedule of webhook attempts."""
    return time.time_ns() // 1_000_000
