"""Where one installation keeps its files: `var/`, or the folder named by METERPLANE_VAR.

Files that hold a secret are written whole, atomically, and are readable by their owner only from
their first byte on.
"""

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PRIVATE = 0o600


@dataclass(frozen=True, slots=True)
class Layout:
    """Every path of one installation, below `var`."""

    var: Path

    @property
    def logs(self) -> Path:
        """One file per process."""
        return self.var / "logs"

    @property
    def secrets(self) -> Path:
        """Everything generated for this installation. Private."""
        return self.var / "secrets.json"

    @property
    def stack(self) -> Path:
        """Addresses and logins of the running stack, for scripts. Private."""
        return self.var / "stack.json"

    @property
    def environment(self) -> Path:
        """The environment of management commands while the stack runs. Private."""
        return self.var / "environment.json"

    @property
    def record(self) -> Path:
        """What the supervisor started and in which state it is. Private."""
        return self.var / "supervisor.json"

    @property
    def lock(self) -> Path:
        """Held by the running supervisor."""
        return self.var / "supervisor.lock"

    @property
    def postgres(self) -> Path:
        """The embedded database."""
        return self.var / "postgres"

    @property
    def broker(self) -> Path:
        """The embedded Redis of broker and cache."""
        return self.var / "redis-broker"

    @property
    def admission(self) -> Path:
        """The embedded Redis of admission; keeps nothing that matters."""
        return self.var / "redis-admission"

    @property
    def triton(self) -> Path:
        """The embedded inference server's working files."""
        return self.var / "triton"

    @property
    def journal(self) -> Path:
        """The gateway's usage journal."""
        return self.var / "journal"

    @property
    def files(self) -> Path:
        """Customers' files: what batches read and write."""
        return self.var / "files"

    @property
    def sandbox(self) -> Path:
        """The Stripe sandbox's database."""
        return self.var / "stripe.sqlite3"

    @property
    def demo(self) -> Path:
        """How far the demo's history has come. Private."""
        return self.var / "demo.json"

    def log(self, process: str) -> Path:
        """The log file of one process."""
        return self.logs / f"{process}.log"

    def create(self) -> None:
        """Make the folders that must exist before anything starts."""
        self.logs.mkdir(parents=True, exist_ok=True)
        self.journal.mkdir(exist_ok=True)


def current() -> Layout:
    """The installation this command is about."""
    return Layout(Path(os.environ.get("METERPLANE_VAR") or ROOT / "var").resolve())


def write_private(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step, mode 0600."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    draft.replace(path)
