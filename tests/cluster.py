"""The PostgreSQL cluster that every process of a test run has a copy of.

Guarantees: whoever needs it first makes it, with its roles and its database migrated by its owner,
while the others wait; what a process does to its own copy no other sees. Runs of the same day keep
it for each other, as long as nothing has changed that it is made of.
"""

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from django.core.management import call_command
from django.db import connections

from meterplane.stack.embedded import postgres
from tests import environment

ROOT = Path(__file__).resolve().parents[1]
INFRASTRUCTURE = ROOT / "infra" / "postgres"
KEPT_MAX = 3
Start = Callable[[Path], "subprocess.Popen[bytes]"]


def copy_to(home: Path, start: Start) -> None:
    """Put a copy into `home`. `start(home)` starts a server and returns when it answers."""
    made, data = environment.RUN / "made", environment.RUN / "postgres" / "data"
    with (environment.RUN / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            kept = environment.KEPT / _what_it_is_made_of()
            if not _copy_whole(kept, data):
                _make(data.parent, start)
                _copy_whole(data, kept)
                _forget_the_oldest()
            made.touch()
    home.mkdir(parents=True)
    subprocess.run(["cp", "-a", data, home], check=True)
    postgres.prepare(home, environment.SUPERUSER_PASSWORD)


def _what_it_is_made_of() -> str:
    """The same text for the same cluster. Of one day: a migration may look at the calendar."""
    folders = (ROOT / "platform", ROOT / "billing", ROOT / "tenants")
    migrations = (path for folder in folders for path in folder.rglob("migrations/*.py"))
    code = (Path(each.__file__) for each in (environment, postgres))
    rest = (ROOT / "uv.lock", Path(__file__), *code, *INFRASTRUCTURE.iterdir())
    digest = hashlib.sha256(f"{datetime.now(UTC):%F} {environment.SUPERUSER_PASSWORD}".encode())
    for path in sorted((*migrations, *rest)):
        digest.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return f"cluster-{digest.hexdigest()[:24]}"


def _copy_whole(source: Path, target: Path) -> bool:
    """False when there is no such folder. Of two at once the second finds that it is there."""
    unfinished = target.with_name(f"{target.name}.{environment.HOME.name}")
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["cp", "-a", source, unfinished], check=True, capture_output=True)
        with contextlib.suppress(OSError):
            unfinished.rename(target)
    except subprocess.CalledProcessError:
        return False
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return True


def _forget_the_oldest() -> None:
    kept = sorted(environment.KEPT.glob("cluster-*"), key=lambda path: path.stat().st_ctime)
    for path in kept[:-KEPT_MAX]:
        shutil.rmtree(path, ignore_errors=True)


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
