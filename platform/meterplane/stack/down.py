"""Stop a stack from any shell, and whatever a killed supervisor left behind.

Only processes that the record names by pid *and* start time are signalled, and the members of the
sessions they opened. Everything else on the machine is a stranger.
"""

import signal
import time
from collections.abc import Callable

from meterplane.stack import environment, processes, record, stack_file
from meterplane.stack.layout import Layout
from meterplane.stack.processes import Identity
from meterplane.stack.record import StackRecord

STOP_WITHIN_S = 90.0  # every component has its own, shorter bound
LEFTOVER_STOP_WITHIN_S = 10.0
POLL_S = 0.05


def running(layout: Layout) -> StackRecord | None:
    """The record of a stack whose supervisor lives; None when nothing runs."""
    found = record.read(layout)
    return found if found is not None and processes.is_alive(found.supervisor) else None


def stop(
    layout: Layout, observer: Callable[[StackRecord], None] = lambda record: None
) -> StackRecord | None:
    """Stop the running stack and wait for its end. None when nothing ran."""
    found = running(layout)
    if found is None:
        return None
    processes.send(found.supervisor, signal.SIGTERM)
    deadline = time.monotonic() + STOP_WITHIN_S
    while processes.is_alive(found.supervisor):
        latest = record.read(layout)
        if latest is not None:
            observer(latest)
        if time.monotonic() > deadline:
            processes.send(found.supervisor, signal.SIGKILL)
        time.sleep(POLL_S)
    return found


def stop_leftovers(layout: Layout) -> list[str]:
    """End what a supervisor that is no more had started. The names of what was ended."""
    found = record.read(layout)
    if found is None or processes.is_alive(found.supervisor):
        return []
    marker = str(layout.var)
    ended: list[str] = []
    remaining: list[Identity] = []
    for component in found.components:
        if component.process is None:
            continue
        members = processes.session_members(component.process, marker=marker)
        asked = processes.send(component.process, signal.Signals(component.stop_signal))
        if asked or members:
            ended.append(component.name)
            remaining += [component.process, *members]
    _wait_then_kill(remaining)
    stack_file.withdraw(layout)
    environment.forget(layout)
    return ended


def _wait_then_kill(remaining: list[Identity]) -> None:
    deadline = time.monotonic() + LEFTOVER_STOP_WITHIN_S
    while any(processes.is_alive(each) for each in remaining):
        if time.monotonic() > deadline:
            for each in remaining:
                processes.send(each, signal.SIGKILL)
        time.sleep(POLL_S)
