"""One component's life: prepared, started, watched, restarted with backoff, stopped.

Guarantees: a process is always spawned from the supervisor's main thread, because the kernel's
parent-death signal is tied to the *thread* that forked; the child is the leader of a session of its
own; whatever its session left behind is killed before it is started again. It does not decide
order; that is the supervisor's.
"""

import ctypes
import os
import signal
import subprocess
import time
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import IO

from meterplane.kernel import clock
from meterplane.kernel.invariant import ensure
from meterplane.stack import processes
from meterplane.stack.component import (
    BACKOFF_MAX_S,
    STEADY_AFTER_S,
    Component,
    Launch,
    NotStarted,
    Probe,
    Running,
)
from meterplane.stack.embedded import EmbeddedUnavailable
from meterplane.stack.processes import Identity
from meterplane.stack.record import ComponentRecord, State, last_lines

PROBE_EVERY_S = 0.05
HEALTH_EVERY_S = 5.0
LOG_BYTES_MAX = 32 * 1024 * 1024
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Child:
    """The supervisor's view of one component. `advance` moves it; nothing here blocks."""

    def __init__(self, component: Component, log: Path, marker: str, executor: Executor) -> None:
        self.component = component
        self.log = log
        self.state: State = "waiting"
        self.process: Identity | None = None
        self.restarts = 0
        self.detail = ""
        self.last_exit = ""
        self.changed = True
        self._marker = marker
        self._executor = executor
        self._popen: subprocess.Popen[bytes] | None = None
        self._work: Future[Launch | None] | None = None
        self._probe: Future[bool] | None = None
        self._log_offset = 0
        self._since_ms = clock.now_ms()
        self._since = time.monotonic()
        self._spawned = 0.0
        self._next = 0.0  # of a probe, or of the start after a backoff
        self._attempts = 0
        self._forced = False

    # -- what is so

    @property
    def is_up(self) -> bool:
        """True while a process of ours exists, in whatever state."""
        return self._popen is not None

    def record(self) -> ComponentRecord:
        """For the record file."""
        component = self.component
        return ComponentRecord(
            name=component.name,
            title=component.title,
            state=self.state,
            since_ms=self._since_ms,
            background=component.background,
            process=self.process,
            stop_signal=component.stop_signal,
            restarts=self.restarts,
            url=component.url,
            log=str(self.log),
            detail=self.detail,
            last_exit=self.last_exit,
        )

    def last_lines(self) -> list[str]:
        """The end of what it wrote since it was last started."""
        return last_lines(self.log, since=self._log_offset) if self._spawned else []

    # -- what happens

    def advance(self, *, may_start: bool) -> None:
        """Take the next step if there is one. `may_start`: everything it waits for is there."""
        if self._popen is not None and (code := self._popen.poll()) is not None:
            self._ended(code)
        elif self.state == "waiting" and may_start:
            self._prepare()
        elif self.state == "preparing":
            self._prepared()
        elif self.state == "starting":
            self._started()
        elif self.state == "ready":
            self._watch()
        elif self.state == "backing off" and time.monotonic() >= self._next:
            self.restarts += 1
            self._prepare()
        elif self.state == "stopping":
            self._stopping()

    def stop(self) -> None:
        """Ask it to end; what is not running is stopped at once."""
        if self.state in {"done", "failed", "stopped", "stopping"} and not self.is_up:
            return
        if self._popen is None:
            self._become("stopped", "")
            return
        if self.state != "stopping":
            self._become("stopping", self.detail)
            self._signal(self.component.stop_signal)

    def kill(self) -> None:
        """End it now, without asking."""
        if self._popen is not None:
            self._become("stopping", "killed")
            self._forced = True
            self._signal(signal.SIGKILL)

    def trim_log(self) -> None:
        """Start the log again when it has grown past its bound; the old part is kept once."""
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            self.log.with_suffix(".log.1").write_bytes(self.log.read_bytes())
            os.truncate(self.log, 0)  # every writer appends, so the next line lands at the start

    # -- how

    def _become(self, state: State, detail: str) -> None:
        if (state, detail) == (self.state, self.detail):
            return
        if state != self.state:
            self._since_ms, self._since = clock.now_ms(), time.monotonic()
        self.state, self.detail, self.changed = state, detail, True

    def _prepare(self) -> None:
        self._become("preparing", "")
        self._work = self._executor.submit(self.component.prepare)

    def _prepared(self) -> None:
        ensure(self._work is not None, "preparing has work under way")
        if self._work is None or not self._work.done():
            return
        work, self._work = self._work, None
        try:
            launch = work.result()
        except (NotStarted, EmbeddedUnavailable) as refusal:
            self._fail(str(refusal))
        except Exception as error:  # whatever a server's own tooling raised: named, not lost
            self._fail(f"{type(error).__name__}: {error}")
        else:
            if launch is None:
                self._become("done", "")
            else:
                self._spawn(launch)

    def _spawn(self, launch: Launch) -> None:
        with self.log.open("ab") as log:
            self._log_offset = log.tell()
            try:
                self._popen = _popen(launch, log, self.component.stop_signal, self._marker)
            except OSError as error:
                self._fail(f"cannot be started: {error}")
                return
        self._spawned = time.monotonic()
        self.process = processes.identify(self._popen.pid)
        self._become("starting", "")
        self.changed = True

    def _started(self) -> None:
        waited_s = time.monotonic() - self._spawned
        if self.component.kind == "service" and self._answers(self.component.ready, PROBE_EVERY_S):
            self._become("ready", "")
        elif waited_s > self.component.ready_within_s and not self._forced:
            self._late(f"not ready within {self.component.ready_within_s:.0f} s")

    def _watch(self) -> None:
        if self._attempts and time.monotonic() - self._since > STEADY_AFTER_S:
            self._attempts = 0
        asked = self.component.healthy
        if asked is None or (time.monotonic() < self._next and self._probe is None):
            return
        if self._answers(asked, HEALTH_EVERY_S):
            self._become("ready", "")
        elif self._probe is None:
            self._become("ready", "does not answer")

    def _answers(self, asked: Probe, again_in_s: float) -> bool:
        """The verdict of the last finished probe; starts the next when it is due."""
        if self._probe is not None and self._probe.done():
            probe, self._probe = self._probe, None
            self._next = time.monotonic() + again_in_s
            return probe.exception() is None and probe.result()
        if self._probe is None and time.monotonic() >= self._next:
            uptime_s = time.monotonic() - self._spawned
            pid = self.process.pid if self.process else 0
            running = Running(pid, self.log, self._log_offset, uptime_s)
            self._probe = self._executor.submit(asked, running)
        return False

    def _stopping(self) -> None:
        waited_s = time.monotonic() - self._since
        if waited_s > self.component.stop_within_s and not self._forced:
            self._forced = True
            self._become("stopping", f"killed after {self.component.stop_within_s:.0f} s")
            self._signal(signal.SIGKILL)

    def _late(self, reason: str) -> None:
        """A process that never answered: end it; what follows is decided when it has ended."""
        self._forced = True
        if self.restarts:
            self._become("starting", reason)
        else:
            self._become("failed", reason)
        self._signal(signal.SIGKILL)

    def _fail(self, reason: str) -> None:
        if self.restarts:  # it once ran: keep trying, the cause may pass
            self._back_off(reason)
        else:
            self._become("failed", reason)

    def _back_off(self, reason: str) -> None:
        delay_s = min(self.component.backoff_first_s * 2**self._attempts, BACKOFF_MAX_S)
        self._attempts += 1
        self._next = time.monotonic() + delay_s
        self._become("backing off", f"{reason}; again in {delay_s:.1f} s")

    def _ended(self, code: int) -> None:
        ensure(self.process is not None, "a spawned process has an identity")
        if self.process is not None:
            for member in processes.session_members(self.process, marker=self._marker):
                processes.send(member, signal.SIGKILL)
        self._popen, self.process, self._probe, self._next = None, None, None, 0.0
        self._forced = False
        self.last_exit = _exit_text(code)
        self.changed = True
        if self.state == "stopping":
            self._become("stopped", self.detail)
        elif self.component.kind == "step":
            self._become("done" if code == 0 else "failed", "" if code == 0 else self.last_exit)
        elif self.state == "starting" and not self.restarts:
            self._become("failed", f"{self.last_exit} before it was ready")
        elif self.state != "failed":
            self._back_off(self.detail or self.last_exit)

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            processes.send(self.process, number)


def _popen(
    launch: Launch, log: IO[bytes], death_signal: signal.Signals, marker: str
) -> subprocess.Popen[bytes]:
    supervisor = os.getpid()

    def in_child() -> None:
        # Runs between fork and exec: only calls that were bound before the fork.
        _libc.prctl(_PR_SET_PDEATHSIG, death_signal)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if os.getppid() != supervisor:
            os._exit(1)  # the supervisor died before the line above could matter

    return subprocess.Popen(
        launch.argv,
        env={**launch.env, processes.MARKER: marker},
        cwd=launch.cwd,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=in_child,
        **launch.account,
    )


def _exit_text(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exited with status {code}"
