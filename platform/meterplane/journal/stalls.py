"""A disk that does not answer is a failed disk: who notices, with one timer for all that runs.

Guarantees: `stalled` is called once, when something has been under way for `timeout_s`. A timer per
commit would cost more than the commit, so the one there is looks again when the oldest piece of
work could be that old. Does not know what runs.
"""

import asyncio
import time
from collections.abc import Callable


class StallWatch:
    """Watches one writer's disk. `busy_since` tells `time.monotonic` of what began first."""

    def __init__(
        self,
        timeout_s: float,
        busy_since: Callable[[], float | None],
        stalled: Callable[[], None],
    ) -> None:
        self._timeout_s = timeout_s
        self._busy_since = busy_since
        self._stalled = stalled
        self._timer: asyncio.TimerHandle | None = None

    def arm(self) -> None:
        """Something has begun."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._timeout_s, self._look)

    def cancel(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        began = self._busy_since()
        if began is None:
            return
        left_s = began + self._timeout_s - time.monotonic()
        if left_s > 0:
            self._timer = asyncio.get_running_loop().call_later(left_s, self._look)
        else:
            self._stalled()
