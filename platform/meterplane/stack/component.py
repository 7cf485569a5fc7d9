"""What the supervisor can run: a process that should stay up, or a step that should end well.

Values only; `child.py` gives them life.
"""

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

READY_WITHIN_S = 60.0
STOP_WITHIN_S = 10.0
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 10.0
STEADY_AFTER_S = 10.0  # up this long, a component's next crash backs off from the start again


@dataclass(frozen=True, slots=True)
class Launch:
    """One process to start. `env` is its whole environment; `account` drops privileges."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    account: Mapping[str, Any] = field(default_factory=dict)
    cwd: Path | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """What a probe may look at: the process, and its log from where this start began to write."""

    pid: int
    log: Path
    log_offset: int
    uptime_s: float


class NotStarted(Exception):
    """A component cannot be prepared on this machine or with this configuration; says why."""


Probe = Callable[[Running], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One part of the stack.

    Args:
        prepare: makes what the process needs and answers how to start it; runs in a thread, again
            before each restart. A step without a process answers None when it is done.
        after: components that must be ready or done first; stopping goes the other way round.
        ready: asked every 50 ms while starting. Ignored for a step.
        healthy: asked every few seconds once ready; None asks nothing beyond that it runs.
        background: the stack is ready without it, and its failure is told, not fatal.
    """

    name: str
    title: str
    prepare: Callable[[], Launch | None]
    kind: Literal["service", "step"] = "service"
    after: tuple[str, ...] = ()
    ready: Probe = lambda running: True
    healthy: Probe | None = None
    ready_within_s: float = READY_WITHIN_S
    stop_signal: signal.Signals = signal.SIGTERM
    stop_within_s: float = STOP_WITHIN_S
    backoff_first_s: float = BACKOFF_FIRST_S
    background: bool = False
    url: str = ""


def check_order(components: list[Component]) -> None:
    """Raise ValueError unless each component names only earlier ones in `after`."""
    known: set[str] = set()
    for component in components:
        unknown = set(component.after) - known
        if unknown or component.name in known:
            raise ValueError(f"{component.name}: {unknown or 'named twice'}")
        known.add(component.name)
