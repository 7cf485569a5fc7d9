"""Starts components in order, keeps them up, and stops exactly what it started.

One thread decides everything; slow work (initdb, probes) runs in a small pool and is only looked
at. The loop sleeps in `sigtimedwait`, so a child's end or a stop request is seen at once and no
signal handler runs in between two statements.

While the stack comes up, one component that fails fails the stack: the others are stopped again.
Once it is up, a component that ends is restarted for as long as the supervisor lives.
"""

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from meterplane.kernel import clock
from meterplane.kernel.invariant import unreachable
from meterplane.stack import processes, record
from meterplane.stack.child import Child
from meterplane.stack.component import Component, check_order
from meterplane.stack.layout import Layout
from meterplane.stack.record import SETTLED, Failure, Phase, StackRecord

BUSY_TICK_S = 0.02
IDLE_TICK_S = 0.2
LOGS_CHECKED_EVERY_S = 30.0
WORK_AT_ONCE = 8
_STOP = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}

Observer = Callable[[StackRecord], None]


class Supervisor:
    """Runs `components` until told to stop.

    Args:
        observer: called with the record after every change, from the main thread.
        publish: called when the stack is ready and whenever its processes change after that.
        withdraw: called once, when it is no longer there to be used.
    """

    def __init__(
        self,
        layout: Layout,
        components: list[Component],
        *,
        notes: list[str] | None = None,
        observer: Observer = lambda record: None,
        publish: Observer = lambda record: None,
        withdraw: Callable[[], None] = lambda: None,
    ) -> None:
        check_order(components)
        self._layout = layout
        self._observer, self._publish, self._withdraw = observer, publish, withdraw
        self._notes = list(notes or [])
        self._executor = ThreadPoolExecutor(WORK_AT_ONCE, thread_name_prefix="stack")
        self._children = {
            component.name: Child(
                component, layout.log(component.name), str(layout.var), self._executor
            )
            for component in components
        }
        self._phase: Phase = "starting"
        self._failure: Failure | None = None
        self._started_at_ms = clock.now_ms()
        self._started = time.monotonic()
        self._ready_after_ms: int | None = None
        self._logs_checked = 0.0
        own = processes.identify(os.getpid())
        if own is None:
            unreachable("this process exists")
        self._own = own

    def run(self) -> int:
        """Blocks until everything is stopped again. The exit status: 0, or 1 after a failure."""
        watched = _STOP | {signal.SIGCHLD}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
        try:
            self._tell()
            while self._phase not in {"stopped", "failed"}:
                self._tick()
                received = signal.sigtimedwait(watched, self._pause_s())
                if received is not None and received.si_signo in _STOP:
                    self._asked_to_stop()
        finally:
            self._executor.shutdown(wait=False, cancel_futures=True)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return 1 if self._failure else 0

    def snapshot(self) -> StackRecord:
        """The record as of now."""
        return StackRecord(
            supervisor=self._own,
            phase=self._phase,
            started_at_ms=self._started_at_ms,
            ready_after_ms=self._ready_after_ms,
            components=[child.record() for child in self._children.values()],
            notes=self._notes,
            failure=self._failure,
        )

    # -- one turn

    def _tick(self) -> None:
        for child in self._children.values():
            if self._phase == "stopping" and not child.is_up:
                child.stop()  # before it can be started, or started again
            child.advance(may_start=self._may_start(child))
        if self._phase == "starting":
            self._judge_start()
        elif self._phase == "stopping":
            self._stop_next()
        self._check_logs()
        if any(child.changed for child in self._children.values()):
            for child in self._children.values():
                child.changed = False
            self._tell()

    def _pause_s(self) -> float:
        moving = self._phase != "ready" or any(
            child.state in {"preparing", "starting"} for child in self._children.values()
        )
        return BUSY_TICK_S if moving else IDLE_TICK_S

    def _may_start(self, child: Child) -> bool:
        if self._phase not in {"starting", "ready"}:
            return False
        return all(self._children[name].state in SETTLED for name in child.component.after)

    def _judge_start(self) -> None:
        wanted = [child for child in self._children.values() if not child.component.background]
        failed = [child for child in wanted if child.state == "failed"]
        if failed:
            self._give_up(failed[0])
        elif all(child.state in SETTLED for child in wanted):
            self._phase = "ready"
            self._ready_after_ms = int((time.monotonic() - self._started) * 1000)
            wanted[0].changed = True

    def _give_up(self, child: Child) -> None:
        self._failure = Failure(
            component=child.component.name,
            reason=child.detail,
            log=str(child.log),
            tail=child.last_lines(),
        )
        self._phase = "stopping"
        child.changed = True

    def _asked_to_stop(self) -> None:
        if self._phase == "stopping":  # asked twice: do not wait for anybody
            for child in self._children.values():
                child.kill()
            return
        if self._phase == "ready":
            self._withdraw()
        self._phase = "stopping"
        self._tell()

    def _stop_next(self) -> None:
        """Stop whatever nothing that still runs depends on."""
        needed: set[str] = set()
        for name, child in reversed(self._children.items()):
            if child.is_up or name in needed:
                needed.update(child.component.after)
        for name, child in self._children.items():
            if name not in needed:
                child.stop()
        if not any(child.is_up for child in self._children.values()):
            self._phase = "failed" if self._failure else "stopped"
            self._tell()

    def _tell(self) -> None:
        snapshot = self.snapshot()
        if snapshot.phase == "ready":
            self._publish(snapshot)  # first: who reads that all is ready finds it published
        record.write(self._layout, snapshot)
        self._observer(snapshot)

    def _check_logs(self) -> None:
        if time.monotonic() - self._logs_checked > LOGS_CHECKED_EVERY_S:
            self._logs_checked = time.monotonic()
            for child in self._children.values():
                child.trim_log()
