"""How to start the real servers that travel inside Python wheels, without root or Docker.

Each module prepares what its server needs on disk and answers with an `EmbeddedCommand`; none of
them starts a process. Starting, watching and stopping is the supervisor's work.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EmbeddedCommand:
    """A process to start. `env` is its whole environment: nothing is inherited besides it."""

    argv: list[str]
    env: dict[str, str]


class EmbeddedUnsupported(Exception):
    """This machine cannot run the embedded server; the message says what to do instead."""
