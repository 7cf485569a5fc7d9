"""One run: its options, what it started, and where its results go."""

from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.gateway.load import Load
from tests.benchmarks.gateway.machine import Patience
from tests.benchmarks.gateway.processes import Processes
from tests.benchmarks.gateway.report import Report
from tests.benchmarks.gateway.targets import Starter, Target

SECTIONS = ("chat", "stream", "relay", "memory", "idle", "cold")


@dataclass(frozen=True, slots=True)
class Options:
    """How much to measure."""

    sections: tuple[str, ...]
    seconds: float  # of one run of a load client
    rounds: int
    requests: int  # of the memory slope
    idle_streams: int
    cold_starts: int
    with_nginx: bool
    patience_s: float
    journal_dir: Path


@dataclass(frozen=True, slots=True)
class Bench:
    """Handed to every section."""

    options: Options
    processes: Processes
    starter: Starter
    load: Load
    patience: Patience
    report: Report
    targets: list[Target]  # direct first: the baseline
    durable: Target  # one of them: the gateway as it is run
    cold: Target  # a gateway that is started again and again

    def settle_accounts(self) -> None:
        """Take in what the journals have sealed, so that a long run fills no disk."""
        for target in (*self.targets, self.cold):
            if target.account:
                target.account.read_sealed()

    def wait_for_calm(self) -> None:
        """Before something that is measured once."""
        self.patience.wait_for_calm(self.load.groups)
