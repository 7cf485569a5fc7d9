"""Bring a whole stack up: in this terminal, or detached and back when it is ready.

One supervisor per installation: a lock holds that, and the record says who it is. Starting over a
stack that runs changes nothing and says where it is.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console

from meterplane.stack import (
    environment,
    installation,
    ports,
    processes,
    record,
    servers,
    stack_file,
)
from meterplane.stack.blueprint import Blueprint
from meterplane.stack.down import running, stop_leftovers
from meterplane.stack.layout import ROOT, Layout
from meterplane.stack.record import StackRecord
from meterplane.stack.screen import Screen, tell_failure, tell_ready
from meterplane.stack.supervisor import Supervisor

POLL_S = 0.1
SUPERVISOR_LOG = "supervisor"


class AlreadyStarting(Exception):
    """Another supervisor of this installation holds the lock."""


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What the command line asked for. `supervise`: be the supervisor of a detached start."""

    port_base: int = ports.USUAL_BASE
    detach: bool = False
    reset: bool = False
    yes: bool = False
    supervise: bool = False


def up(layout: Layout, options: UpOptions, console: Console) -> int:
    """Start, and either stay as the supervisor or return when ready. The exit status."""
    if (found := running(layout)) is not None and not options.supervise:
        return _tell_running(layout, found, options, console)
    if options.reset and not options.yes and not _confirmed(layout, console):
        return 1
    layout.create()
    if options.detach:
        return _detached(layout, options, console)
    try:
        with _lock(layout):
            return _supervised(layout, options, console)
    except AlreadyStarting:
        console.print("  Another `up` of this installation is under way.", style="red")
        return 1
    except (ValueError, OSError, servers.ConfigurationError) as problem:
        console.print(f"  {problem}", style="red", soft_wrap=True)
        return 1


def wipe(layout: Layout) -> None:
    """Remove everything this installation ever stored, except its logs."""
    for entry in layout.var.iterdir():
        if entry in {layout.logs, layout.lock}:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _supervised(layout: Layout, options: UpOptions, console: Console) -> int:
    for name in stop_leftovers(layout):
        console.print(f"  ended {name}, left behind by a supervisor that was killed")
    if options.reset:
        wipe(layout)
        layout.create()
    chosen = ports.choose(options.port_base)
    secrets = installation.load(layout)
    located = servers.locate(layout, chosen, secrets)
    servers.check_payments(located)
    blueprint = Blueprint(layout, chosen, located)
    notes = [
        f"Port {usual} is taken; {name} uses {chosen.numbers[name]}."
        for name, usual in chosen.moved.items()
        if located.is_ours(name.partition("-")[0])
    ]
    with Screen(console) as screen:
        teller = _Teller(layout, located, screen)
        return Supervisor(
            layout,
            blueprint.components(),
            notes=notes,
            observer=teller.observe,
            publish=teller.publish,
            withdraw=teller.withdraw,
        ).run()


class _Teller:
    """Publishes what scripts read and tells the person in front, as the record changes."""

    def __init__(self, layout: Layout, located: servers.Servers, screen: Screen) -> None:
        self._layout = layout
        self._located = located
        self._screen = screen
        self._was_ready = False
        self._has_failed = False

    def publish(self, found: StackRecord) -> None:
        secrets = installation.load(self._layout)
        values = environment.control_plane(self._layout, self._located, secrets)
        environment.keep(self._layout, values)
        stack_file.publish(self._layout, self._located, secrets, found)

    def withdraw(self) -> None:
        stack_file.withdraw(self._layout)
        environment.forget(self._layout)

    def observe(self, found: StackRecord) -> None:
        if found.phase != "starting":
            self._screen.settle()
        self._screen.show(found)
        if found.phase == "ready" and not self._was_ready:
            self._was_ready = True
            stack = stack_file.read(self._layout)
            if stack is not None:
                tell_ready(self._screen.console, stack, found, _hint(self._layout, "Ctrl-C"))
        if found.failure is not None and not self._has_failed:
            self._has_failed = True
            tell_failure(self._screen.console, found.failure)


@contextmanager
def _lock(layout: Layout) -> Iterator[None]:
    descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise AlreadyStarting from None
    finally:
        os.close(descriptor)


# -- detached


def _detached(layout: Layout, options: UpOptions, console: Console) -> int:
    argv = [sys.executable, str(ROOT / "manage.py"), "up", "--supervise"]
    argv += ["--port-base", str(options.port_base)]
    argv += ["--reset", "--yes"] if options.reset else []
    log = layout.log(SUPERVISOR_LOG)
    with log.open("ab") as output:
        supervisor = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"METERPLANE_VAR": str(layout.var)},
        )
    try:
        return _follow(layout, supervisor, console)
    except KeyboardInterrupt:
        supervisor.send_signal(signal.SIGTERM)
        supervisor.wait()
        console.print("  Stopped.")
        return 130


def _follow(layout: Layout, supervisor: "subprocess.Popen[bytes]", console: Console) -> int:
    with Screen(console) as screen:
        while True:
            ended = supervisor.poll() is not None
            found = record.read(layout)
            if found is not None and found.supervisor.pid == supervisor.pid:
                screen.show(found)
                if found.phase == "ready":
                    break
                if found.phase == "failed" and found.failure is not None:
                    screen.settle()
                    tell_failure(console, found.failure)
                    supervisor.wait()
                    return 1
            if ended:
                screen.settle()
                for line in record.last_lines(layout.log(SUPERVISOR_LOG)):
                    console.print(line, soft_wrap=True)
                return supervisor.returncode or 1
            time.sleep(POLL_S)
    stack = stack_file.read(layout)
    if stack is not None:
        tell_ready(console, stack, found, _hint(layout, "`make down`"))
    return 0


def _hint(layout: Layout, stop: str) -> str:
    logs = layout.logs.relative_to(ROOT) if layout.logs.is_relative_to(ROOT) else layout.logs
    return f"Stop with {stop}. Logs: {logs}"


# -- before anything starts


def _tell_running(layout: Layout, found: StackRecord, options: UpOptions, console: Console) -> int:
    stack = stack_file.read(layout)
    if options.reset:
        console.print("  A stack of this installation runs; stop it first: `make down`.")
        return 1
    console.print(f"\n  A stack of this installation runs already (pid {found.supervisor.pid}).")
    if stack is None or not processes.is_alive(found.supervisor):
        console.print(f"  It is {found.phase}. `make status` shows more.")
        return 1
    tell_ready(console, stack, found, _hint(layout, "`make down`"))
    return 0


def _confirmed(layout: Layout, console: Console) -> bool:
    if not sys.stdin.isatty():
        console.print("  --reset removes all data; say --yes where nobody can be asked.")
        return False
    console.print(f"\n  This removes [bold]all data[/bold] in {layout.var}: usage, invoices, keys.")
    return console.input("  Type [bold]reset[/bold] to go on: ").strip() == "reset"
