"""The processes of one run. Every one ends with it: also on Ctrl-C, also if this process is killed.

Nothing else is ever signalled. What each printed is in the run's folder, under its name.
"""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

STOP_WITHIN_S = 40.0  # a gateway drains for 30 s
READY_WITHIN_S = 30.0


class NotReady(Exception):
    """A process ended, or did not answer in time; the message has the end of its output."""


class Processes:
    """Starts processes and stops them in reverse."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[subprocess.Popen[bytes]] = []
        logs.mkdir(parents=True, exist_ok=True)

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        core: int,
        env: Mapping[str, str] | None = None,
        account: Mapping[str, Any] | None = None,
        folder: Path | None = None,
    ) -> "subprocess.Popen[bytes]":
        """Start `argv` on one core, as another user where `account` says so."""
        # In a session of its own, so that Ctrl-C in a terminal reaches us alone and we stop it in
        # order; told by the kernel to end if we cannot.
        prefix = ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(core)]
        with self.log(name).open("ab") as output:
            process = subprocess.Popen(
                [*prefix, *argv],
                env=None if env is None else dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                start_new_session=True,
                **(account or {}),
            )
        self._running.append(process)
        return process

    def running(self, pids: Sequence[int]) -> "list[subprocess.Popen[bytes]]":
        """Those of these that were started here and not stopped yet."""
        return [process for process in self._running if process.pid in pids]

    def log(self, name: str) -> Path:
        """Where the output of `name` goes."""
        return self._logs / f"{name}.log"

    def stop(self, process: "subprocess.Popen[bytes]") -> None:
        """Ask it to end; insist when it does not."""
        if process in self._running:
            self._running.remove(process)
        if process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def wait_until(
        self, ready: Callable[[], bool], name: str, process: "subprocess.Popen[bytes]"
    ) -> None:
        """Poll until `ready()`. Raises `NotReady`."""
        deadline = time.monotonic() + READY_WITHIN_S
        while not ready():
            if process.poll() is not None:
                raise NotReady(f"{name} ended with {process.returncode}:\n{self.last_words(name)}")
            if time.monotonic() > deadline:
                raise NotReady(
                    f"{name} did not answer in {READY_WITHIN_S:.0f} s:\n{self.last_words(name)}"
                )
            time.sleep(0.005)

    def last_words(self, name: str) -> str:
        """The end of what it printed."""
        return self.log(name).read_text(errors="replace")[-1500:].strip() or "(it printed nothing)"

    def __enter__(self) -> "Processes":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in reversed(list(self._running)):
            self.stop(process)
