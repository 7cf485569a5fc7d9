"""A PostgreSQL of the benchmark's own, durable and on a real disk, with a few organisations in it.

Imported before Django: it sets the environment that the settings are read from.
"""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psycopg

from meterplane.kernel.invariant import ensure
from meterplane.stack.embedded import postgres, redis

ROOT = Path(__file__).resolve().parents[3]
DATABASE = "meterplane_bench"
ORGANISATIONS = 20
KEYS_EACH = 2
# Beside what `make up` starts PostgreSQL with. fsync and synchronous_commit stay on. The rest is
# what a server is given that takes in 15 MB of usage a second: fewer checkpoints, each of which
# makes the first change of every page a whole page in the log; and what PostgreSQL's manual advises
# for `shared_buffers`, a quarter of the memory at the most: a customer's sums lie on many pages.
TUNED = {"max_wal_size": "4GB", "maintenance_work_mem": "1GB", "shared_buffers": "4GB"}
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Key:
    """One of those whose usage is made up."""

    id: UUID
    project_id: UUID
    tenant_id: UUID


@dataclass(frozen=True, slots=True)
class Server:
    """The running server: as its superuser, and the process all others of it descend from."""

    admin: str
    pid: int
    home: Path

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.admin, autocommit=True)

    def cpu_s(self) -> float:
        """Seconds of processor that every process of it, ended ones too, has used."""
        return sum(_cpu_s(pid) for pid in (self.pid, *_children(self.pid)))


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(each) for each in text.split()]


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0  # counted with its parent's from now on
    return sum(map(int, fields[11:15])) / CLOCK_TICKS


@contextmanager
def own_server(folder: str | None, **variables: str) -> Iterator[Server]:
    """Started, migrated, stopped and removed. `folder` is where its files are put; `variables` of
    the environment are set beside its own."""
    home = Path(tempfile.mkdtemp(prefix="mp-bench-ingest-", dir=folder))
    passwords = {role: secrets.token_hex(16) for role in postgres.ROLES}
    root_password = secrets.token_hex(16)

    def url(role: str, database: str = DATABASE) -> str:
        password = root_password if role == postgres.SUPERUSER else passwords[role]
        return postgres.url(home / "postgres", user=role, password=password, database=database)

    postgres.prepare(home / "postgres", root_password)
    command = postgres.postgres_command(home / "postgres")
    settings = [part for name, value in TUNED.items() for part in ("-c", f"{name}={value}")]
    log = (home / "postgres.log").open("wb")
    server = subprocess.Popen(
        command.argv + settings, stdout=log, stderr=log, cwd=home / "postgres", **command.account()
    )
    try:
        admin = url(postgres.SUPERUSER, "postgres")
        while not postgres.is_ready(admin):
            ensure(server.poll() is None, (home / "postgres.log").read_text())
            time.sleep(0.05)
        postgres.create_roles(admin, passwords, ROOT / "infra/postgres/roles.sql")
        postgres.create_database(admin, DATABASE, ROOT / "infra/postgres/database.sql")
        with _redis(home) as redis_url:
            _set_up_django(home, url, redis_url, variables)
            yield Server(url(postgres.SUPERUSER), server.pid, home)
    finally:
        server.send_signal(signal.SIGINT)  # without waiting for who is connected
        server.wait()
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(postgres.socket_folder(home / "postgres"), ignore_errors=True)


@contextmanager
def _redis(home: Path) -> Iterator[str]:
    """Told of the keys that are issued. Nobody asks it while anything is measured."""
    password = secrets.token_hex(8)
    command = redis.redis_command(home / "redis", role="admission", password=password)
    server = subprocess.Popen(command.argv, stdout=subprocess.DEVNULL)
    try:
        url = redis.url(home / "redis", password)
        while not redis.is_ready(url):
            time.sleep(0.02)
        yield url
    finally:
        server.terminate()
        server.wait()


def _set_up_django(
    home: Path, url: Callable[[str], str], redis_url: str, variables: Mapping[str, str]
) -> None:
    os.environ.update(
        METERPLANE_ENV="test",
        PAYMENT_PROVIDER="none",
        METERPLANE_VAR=str(home / "var"),
        DJANGO_SETTINGS_MODULE="meterplane.settings",
        DJANGO_SECRET_KEY=secrets.token_hex(32),
        API_KEY_PEPPER=secrets.token_hex(32),
        DATABASE_URL=url("meterplane_app"),
        RECEIPT_SIGNING_KEYS=secrets.token_hex(32),
        REDIS_URL=redis_url,
        ADMISSION_REDIS_URL=redis_url,
        JOURNAL_DIR=str(home / "journal"),
    )
    os.environ.update(variables)
    import django
    from django.core.management import call_command
    from django.db import connection

    django.setup()
    app = dict(connection.settings_dict)
    owner = psycopg.conninfo.conninfo_to_dict(url("meterplane_owner"))
    connection.settings_dict |= {"USER": owner["user"], "PASSWORD": owner["password"]}
    call_command("migrate", verbosity=0, interactive=False)
    connection.close()
    connection.settings_dict |= {name: app[name] for name in ("USER", "PASSWORD")}


def onboard() -> list[Key]:
    """Organisations with a few keys each, as an operator would."""
    from tenants.keys import issue_key
    from tenants.onboard import create_organisation

    keys = []
    for number in range(ORGANISATIONS):
        made = create_organisation(
            slug=f"bench-{number}",
            name=f"Bench {number}",
            owner_email="owner@bench.example",
            owner_password=secrets.token_hex(16),
        )
        for name in map(str, range(KEYS_EACH)):
            of = {"tenant_id": made.organisation.id, "project_id": made.project.id}
            keys.append(Key(issue_key(name=name, **of).key.id, made.project.id, of["tenant_id"]))
    return keys
