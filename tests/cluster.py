"""The PostgreSQL cluster that every process of a test run has a copy of.

Guarantees: whoever needs it first makes it, with its roles and its database migrated by its owner,
while the others wait; what a process does to its own copy no other sees.
"""

import fcntl
import subprocess
from collections.abc import Callable
from pathlib import Path

from django.core.management import call_command
from django.db import connections

from meterplane.stack.embedded import postgres
from tests import environment

INFRASTRUCTURE = Path(__file__).resolve().parents[1] / "infra" / "postgres"
Start = Callable[[Path], "subprocess.Popen[bytes]"]


def copy_to(home: Path, start: Start) -> None:
    """Put a copy into `home`. `start(home)` starts a server and returns when it answers."""
    made = environment.RUN / "made"
    with (environment.RUN / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            _make(environment.RUN / "postgres", start)
            made.touch()
    home.mkdir(parents=True)
    subprocess.run(["cp", "-a", environment.RUN / "postgres" / "data", home], check=True)
    postgres.prepare(home, environment.SUPERUSER_PASSWORD)


def _make(home: Path, start: Start) -> None:
    postgres.prepare(home, environment.SUPERUSER_PASSWORD)
    admin = postgres.url(
        home, user="postgres", password=environment.SUPERUSER_PASSWORD, database="postgres"
    )
    process = start(home)
    try:
        postgres.create_roles(admin, environment.PASSWORDS, INFRASTRUCTURE / "roles.sql")
        postgres.create_database(admin, environment.DATABASE, INFRASTRUCTURE / "database.sql")
        _migrate(home)
    finally:
        process.terminate()
        process.wait()


def _migrate(home: Path) -> None:
    """As the owner; tests then connect as the app's role, to their own copy."""
    connection = connections["default"]
    app = {name: connection.settings_dict[name] for name in ("HOST", "USER", "PASSWORD")}
    connection.settings_dict |= {
        "HOST": str(postgres.socket_folder(home)),
        "USER": "meterplane_owner",
        "PASSWORD": environment.PASSWORDS["meterplane_owner"],
    }
    try:
        call_command("migrate", verbosity=0, interactive=False)
    finally:
        connection.close()
        connection.settings_dict |= app
