"""How often each endpoint is called, and Stripe's limit on it where that is switched on.

Counts are of this process. The limit is Stripe's default in a sandbox, per endpoint and second;
what is above it is answered 429 and not done.
"""

import time
from collections import Counter

LIMIT_PER_S = 25


class RateLimits:
    """Counts since start, and this second's."""

    def __init__(self) -> None:
        self.total: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._second = 0
        self._now: Counter[str] = Counter()

    def allow(self, endpoint: str, *, limited: bool) -> bool:
        """Count a call; False when it is one too many in this second."""
        second = int(time.monotonic())
        if second != self._second:
            self._second = second
            self._now.clear()
        self.total[endpoint] += 1
        self._now[endpoint] += 1
        if limited and self._now[endpoint] > LIMIT_PER_S:
            self.refused[endpoint] += 1
            return False
        return True
