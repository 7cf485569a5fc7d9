"""Workers of payments as processes, side by side, that can be killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from meterplane.kernel.failpoints import VARIABLE
from tests.stripe_sandbox.rig import KEY, ROOT, Sandbox

STOPS_WITHIN_S = 60


class Workers:
    """Processes that sweep payments of this test's database at one sandbox."""

    def __init__(self, sandbox: Sandbox, log: Path) -> None:
        self.log = log
        self._sandbox = sandbox
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, dies_at: str = "") -> subprocess.Popen[bytes]:
        """One more; `arguments` as `tests.billing.payments.worker --help` says."""
        own = {
            "STRIPE_API_BASE": self._sandbox.url,
            "STRIPE_API_KEY": KEY,
            VARIABLE: dies_at,
        }
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.billing.payments.worker", *arguments],
                cwd=ROOT,
                env=os.environ | own,
                stdout=log,
                stderr=log,
            )
        self._running.append(process)
        return process

    def end(self, how: int = signal.SIGTERM) -> None:
        """Stop all there are, or with SIGKILL kill them; none may have ended by itself."""
        running, self._running = self._running, []
        codes = [process.poll() for process in running]
        for process in running:
            if process.returncode is None:
                process.send_signal(how)
        for process in running:
            try:
                process.wait(STOPS_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        assert codes == [None] * len(codes), f"ended by themselves: {codes}; {self.said()}"

    def finish(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for one that ends by itself; its exit status."""
        self._running.remove(process)
        return process.wait(STOPS_WITHIN_S)

    def alive(self) -> Sequence[subprocess.Popen[bytes]]:
        """Those that were started and did not end."""
        return [process for process in self._running if process.poll() is None]

    def said(self) -> str:
        """The last of what they logged."""
        return self.log.read_text(errors="replace")[-3000:]
