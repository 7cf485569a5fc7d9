"""Places where a test may have this process die, each with a name.

`METERPLANE_FAILPOINT=<name>[@<n>]` in a process's environment kills it with SIGKILL, as power or an
operator would, the n-th time it comes by that place; the first time if no number is given. Nothing
is flushed, closed or rolled back. Unset, which is always so but in tests, a place costs one test of
a module's constant. Names are `<part>.<act>.<moment>`, e.g. `ingest.segment.before_commit`.
"""

import os
import signal

VARIABLE = "METERPLANE_FAILPOINT"

_armed, _, _count = os.environ.get(VARIABLE, "").partition("@")
_left = int(_count or 1)


def failpoint(name: str) -> None:
    """Die here if a test asked for it."""
    if _armed and name == _armed:
        _pass()


def _pass() -> None:
    global _left
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
