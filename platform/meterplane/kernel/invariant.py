"""`ensure`: an assertion that survives `python -O`. For our own faults, never for a caller's."""

from typing import NoReturn


class InvariantBroken(AssertionError):
    """Our code broke a promise it makes to itself: stop, do not guess."""


def ensure(condition: object, message: str) -> None:
    """Raise `InvariantBroken(message)` unless `condition` is truthy."""
    if not condition:
        raise InvariantBroken(message)


def unreachable(message: str) -> NoReturn:
    """Mark a branch that no state can reach."""
    raise InvariantBroken(message)
