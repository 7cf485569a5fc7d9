"""Whether a server is worth asking: closed, ejected, half-open.

Guarantees: three failures in a row, or one failed connect, eject a server for a time that doubles
from `EJECTED_S_MIN` to `EJECTED_S_MAX`, with jitter so that a fleet's workers do not come back as
one; after it exactly one trial is let through, whose success closes the circuit and whose failure
ejects again. What was already on its way when the circuit opened neither closes nor prolongs it.

A probe proves that a server is alive, not that it can infer. So it closes the circuit of a server
that could not be reached, or whose time is over, but on probation: until a request succeeds one
failure is enough, and the next ejection is longer.

Knows no I/O and no clock: `now` is monotonic seconds.
"""

import random
from enum import IntEnum

FAILURES_MAX = 3  # in a row; fewer would eject a server for one model's crash
EJECTED_S_MIN = 1.0
EJECTED_S_MAX = 30.0  # 1, 2, 4, 8, 16, 30: a server that is back serves again within a minute
JITTER = 0.25


def _jitter() -> float:
    return random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  a spread, not a secret


class Attempt(IntEnum):
    """In which state of the circuit a request was sent."""

    NORMAL = 0
    TRIAL = 1  # the one that is let through half-open
    LAST_RESORT = 2  # every server was ejected: asked all the same


class Circuit:
    """One server's. `closed` and `spotless` are read in the hot path, everything else is rare."""

    __slots__ = (
        "_ejections",
        "_failures",
        "_reachable",
        "_trial",
        "_until",
        "closed",
        "failed_at",
        "spotless",
    )

    def __init__(self) -> None:
        self.closed = True
        self.spotless = True  # nothing for a success to change
        self.failed_at = 0.0
        self._failures = 0
        self._ejections = 0  # since the last request that succeeded
        self._until = 0.0
        self._trial = False
        self._reachable = True

    def half_open(self, now: float) -> bool:
        """True when a trial may be let through, and none is under way."""
        return not self.closed and not self._trial and now >= self._until

    def begin_trial(self) -> None:
        self._trial = True

    def abandoned(self, attempt: Attempt) -> None:
        """The request ended without saying anything about the server: its caller left."""
        if attempt is Attempt.TRIAL:
            self._trial = False

    def succeeded(self, attempt: Attempt) -> None:
        """The server answered a request."""
        if self.closed or attempt is not Attempt.NORMAL:
            self.closed = self.spotless = True
            self._failures = self._ejections = 0
            self._trial = False

    def failed(self, now: float, attempt: Attempt) -> None:
        """A request was broken off, timed out, or answered by something before the server."""
        self.failed_at = now
        self.spotless = False
        self._failures += 1
        on_probation = self._ejections > 0
        if attempt is Attempt.TRIAL or (
            self.closed and (on_probation or self._failures >= FAILURES_MAX)
        ):
            self._eject(now, reachable=True)

    def unreachable(self, now: float, attempt: Attempt) -> None:
        """It could not be connected to."""
        self.failed_at = now
        if self.closed or attempt is Attempt.TRIAL:
            self._eject(now, reachable=False)
        self._reachable = False

    def probe_succeeded(self, now: float) -> None:
        if not self.closed and not self._trial and (now >= self._until or not self._reachable):
            self.closed = True
            self._failures = 0

    def probe_failed(self, now: float) -> None:
        self.failed_at = now
        if self.closed or (now >= self._until and not self._trial):
            self._eject(now, reachable=False)
        self._reachable = False

    def ejected_for_s(self, now: float) -> float:
        """Seconds until it may be tried; 0 when it may."""
        return 0.0 if self.closed else max(0.0, self._until - now)

    def _eject(self, now: float, *, reachable: bool) -> None:
        length_s = min(EJECTED_S_MAX, EJECTED_S_MIN * 2 ** min(self._ejections, 16))
        self._until = now + length_s * _jitter()
        self._ejections += 1
        self._failures = 0
        self._trial = False
        self._reachable = reachable
        self.closed = self.spotless = False
