"""What the supervisor says about itself: one private file, replaced whole at every change.

Everything else (the screen, `status`, `down`, the next `up`) knows a running stack only from here.
It is a report, not a lock: who reads it checks by `processes.is_alive` that it is still true.
"""

from pathlib import Path
from typing import Literal

import msgspec

from meterplane.stack.layout import Layout, write_private
from meterplane.stack.processes import Identity

State = Literal[
    "waiting",  # for another component
    "preparing",  # its files are made
    "starting",  # it runs and has not answered yet
    "ready",
    "done",  # a step that succeeded
    "backing off",  # it ended by itself and is started again in a moment
    "failed",
    "stopping",
    "stopped",
]
Phase = Literal["starting", "ready", "stopping", "stopped", "failed"]
SETTLED: tuple[State, ...] = ("ready", "done")


class ComponentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One component. `detail` is a sentence for people; `since_ms` is when `state` began.

    `log` is written by it alone; `url` is empty for what nobody calls.
    """

    name: str
    title: str
    state: State
    since_ms: int
    background: bool
    process: Identity | None
    stop_signal: int
    restarts: int
    url: str
    log: str
    detail: str
    last_exit: str


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why the stack did not come up: which component, its log, and the last lines in it."""

    component: str
    reason: str
    log: str
    tail: list[str]


class StackRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The whole stack. `notes` are told to the user once, e.g. ports that were taken."""

    supervisor: Identity
    phase: Phase
    started_at_ms: int
    ready_after_ms: int | None
    components: list[ComponentRecord]
    notes: list[str]
    failure: Failure | None

    def component(self, name: str) -> ComponentRecord:
        """The component of that name. Raises KeyError."""
        for component in self.components:
            if component.name == name:
                return component
        raise KeyError(name)


def write(layout: Layout, record: StackRecord) -> None:
    """Replace the record."""
    write_private(layout.record, msgspec.json.encode(record))


def read(layout: Layout) -> StackRecord | None:
    """The record of the running or last stack; None before the first, or when unreadable."""
    try:
        return msgspec.json.decode(layout.record.read_bytes(), type=StackRecord)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def last_lines(
    log: Path, *, since: int = 0, count: int = 15, window_bytes: int = 16_384
) -> list[str]:
    """The end of a log, from byte `since` at most; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(since, file.tell() - window_bytes))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in text.splitlines() if line.strip()][-count:]
