"""The sandbox's only reading of the time of day, moved by an offset that the control door sets.

Everything else receives the instant as an argument, so tests can choose it. Signatures alone are
made with the true time: a receiver compares them with its own clock.
"""

import time

_offset_s = 0


def now_s() -> int:
    """Unix seconds, as Stripe writes instants."""
    return true_s() + _offset_s


def now_ms() -> int:
    """Unix milliseconds, for the schedule of webhook attempts."""
    return time.time_ns() // 1_000_000 + _offset_s * 1000


def true_s() -> int:
    """Unix seconds of this machine, whatever the sandbox believes."""
    return int(time.time())


def set_offset_s(offset_s: int) -> None:
    """Move the sandbox's time against the machine's; it keeps running from there."""
    global _offset_s
    _offset_s = offset_s
