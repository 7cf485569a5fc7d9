"""One whole stack, started as a user would start it, shared by every scenario."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2 as httpx
import psycopg
import pytest

from meterplane.stack import environment, ports, record, stack_file
from meterplane.stack.layout import Layout
from meterplane.stack.record import StackRecord
from meterplane.stack.stack_file import StackFile
from tests.conftest import wait_until
from tests.stripe_schema import stored

ROOT = Path(__file__).resolve().parents[2]
UP_WITHIN_S = 180


@dataclass(frozen=True, slots=True)
class RunningStack:
    """What a script would know of the stack: its var folder, and the commands."""

    layout: Layout
    env: dict[str, str]
    port_base: int

    def manage(self, *arguments: str, timeout_s: float = UP_WITHIN_S) -> "Finished":
        """Run `manage.py` as a user would, in a shell of the user's own."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def up(self) -> "Finished":
        """Start it, detached."""
        return self.manage("up", "--detach", "--port-base", str(self.port_base))

    @property
    def file(self) -> StackFile:
        """`stack.json` as it is now."""
        found = stack_file.read(self.layout)
        assert found is not None
        return found

    @property
    def record(self) -> StackRecord:
        """The supervisor's report as it is now."""
        found = record.read(self.layout)
        assert found is not None
        return found

    def client(self, **extra: Any) -> httpx.Client:
        """An HTTP client with the printed key."""
        headers = {"Authorization": f"Bearer {self.file.api_key}"}
        return httpx.Client(base_url=self.file.gateway, headers=headers, timeout=30, **extra)

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Ask the database with the administrator's rights: no tenant's door in between."""
        with psycopg.connect(self.file.database, autocommit=True) as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    def events(self, request_ids: Sequence[str]) -> int:
        """How many usage events these requests left."""
        ids = [UUID(each) for each in request_ids]
        [(count,)] = self.rows("SELECT count(*) FROM usage_event WHERE request_id = ANY(%s)", ids)
        return int(count)


Finished = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack with its demo history loaded."""
    var = tmp_path_factory.mktemp("stack") / "var"
    running = RunningStack(Layout(var), shell(var), free_base())
    started = running.up()
    try:
        assert started.returncode == 0, started.stdout + started.stderr + logs(running.layout)
        assert running.file.api_key in started.stdout
        wait_until(
            lambda: running.record.component("history").state in {"done", "failed"},
            "the demo's history",
        )
        assert running.record.component("history").state == "done", logs(running.layout, "history")
        yield running
    finally:
        running.manage("down")
    said = stored.complaints(running.layout.sandbox)
    assert not said, "not as at Stripe:\n" + "\n".join(said)


def shell(var: Path) -> dict[str, str]:
    """A user's environment: nothing of this test process's own servers."""
    ours = {*environment.OURS, "METERPLANE_ENV", "DJANGO_SETTINGS_MODULE", "SSL_CERT_DIR"}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    # What a scenario counts is its own traffic.
    return kept | {"METERPLANE_VAR": str(var), "CANARY_EVERY_S": "0"}


def free_base() -> int:
    """The first of seven free neighbouring ports, from where other test runs do not look first."""
    first = 19_700 + os.getpid() % 900 * 10
    for base in range(first, first + 1_000, 10):
        if all(ports.is_free(base + offset) for offset in ports.OFFSETS.values()):
            return base
    raise AssertionError("no seven free ports in a row")


def logs(layout: Layout, *names: str) -> str:
    """The ends of the logs, for a failure's report."""
    files = [layout.log(name) for name in names] or sorted(layout.logs.glob("*.log"))
    return "\n".join(f"== {file.name}\n" + "\n".join(record.last_lines(file)) for file in files)
