"""The environment of one test process, set before Django reads its settings.

Loaded by `-p tests.environment`. Every pytest process (each xdist worker too) has a home folder of
its own with servers of its own, so that tests may run side by side. Those of one run share a folder
of what is made once and copied, and runs keep some of it for the next. Nothing starts here:
fixtures in `conftest.py` start servers when a test first needs them.
"""

import atexit
import contextlib
import json
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from meterplane.stack.embedded import postgres, redis

# Images of containers often set it. Every process that a test starts would compile the product
# anew, and every worker the tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 4 << 30


def _in_memory() -> str | None:
    """Where servers' files are kept in memory. None for the usual place: there is too little."""
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < MEMORY_BYTES_MIN:
        return None
    return str(MEMORY)


# A disk that somebody else writes a gigabyte to lets everybody wait for seconds, who only reads a
# row, too. What a disk is needed for is tested in folders of the tests' own.
HOME = Path(tempfile.mkdtemp(prefix="mp-test-", dir=_in_memory()))
DATABASE = "meterplane_test"
# Made by the first process of a run; its workers find it in their environment.
RUN_MADE_HERE = "METERPLANE_TEST_RUN" not in os.environ
if RUN_MADE_HERE:
    os.environ["METERPLANE_TEST_RUN"] = tempfile.mkdtemp(prefix="mp-test-run-", dir=_in_memory())
RUN = Path(os.environ["METERPLANE_TEST_RUN"])
# In pytest's own cache, which nobody shares and anybody may remove.
KEPT = Path(__file__).resolve().parents[1] / ".pytest_cache" / "d" / "servers"


def _passwords() -> dict[str, str]:
    """Of PostgreSQL's roles, whose hashes are part of what is copied. Chosen once per checkout."""
    kept = KEPT / "passwords.json"
    if not kept.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        roles = (postgres.SUPERUSER, *postgres.ROLES)
        chosen = KEPT / HOME.name
        chosen.touch(mode=0o600)
        chosen.write_text(json.dumps({role: secrets.token_hex(16) for role in roles}))
        with contextlib.suppress(FileExistsError):
            os.link(chosen, kept)  # of two at once, one
        chosen.unlink()
    found: dict[str, str] = json.loads(kept.read_text())
    return found


PASSWORDS = _passwords()
SUPERUSER_PASSWORD = PASSWORDS.pop(postgres.SUPERUSER)
REDIS_PASSWORD = secrets.token_hex(16)


def database_url(role: str, database: str = DATABASE) -> str:
    """A URL of this process's PostgreSQL for one of the roles, or for the superuser."""
    password = SUPERUSER_PASSWORD if role == postgres.SUPERUSER else PASSWORDS[role]
    return postgres.url(HOME / "postgres", user=role, password=password, database=database)


def redis_url(role: redis.Role) -> str:
    """A URL of this process's Redis in one of its two roles."""
    return redis.url(HOME / f"redis-{role}", REDIS_PASSWORD)


os.environ.update(
    METERPLANE_ENV="test",
    METERPLANE_VAR=str(HOME / "var"),
    DJANGO_SETTINGS_MODULE="meterplane.settings",
    DJANGO_SECRET_KEY=secrets.token_hex(32),
    API_KEY_PEPPER=secrets.token_hex(32),
    RECEIPT_SIGNING_KEYS=secrets.token_hex(32),
    DATABASE_URL=database_url("meterplane_app"),
    MIGRATION_DATABASE_URL=database_url("meterplane_owner"),
    GATEWAY_DATABASE_URL=database_url("meterplane_gateway"),
    REDIS_URL=redis_url("broker"),
    ADMISSION_REDIS_URL=redis_url("admission"),
    ADMISSION_TIMEOUT_MS="2000",  # a busy machine is no Redis that is down
    JOURNAL_DIR=str(HOME / "journal"),
    STRIPE_API_BASE="http://127.0.0.1:9",  # a test that talks to Stripe starts the sandbox itself
    STRIPE_API_KEY="sk_test_" + secrets.token_hex(12),
    STRIPE_WEBHOOK_SECRET="whsec_" + secrets.token_hex(16),
    # Django refuses database calls inside a running event loop; Playwright's sync API runs one.
    DJANGO_ALLOW_ASYNC_UNSAFE="true",
)
os.environ.pop("CELERY_BROKER_URL", None)
# Reading the system's authorities costs each new HTTP client 60 ms; tests speak to loopback alone.
os.environ["SSL_CERT_DIR"] = str(HOME / "no-authorities")
os.environ.pop("SSL_CERT_FILE", None)
(HOME / "no-authorities").mkdir()
(HOME / "var" / "static").mkdir(parents=True)  # what `collectstatic` would fill


@atexit.register
def _remove_home() -> None:
    shutil.rmtree(HOME, ignore_errors=True)
    shutil.rmtree(postgres.socket_folder(HOME / "postgres"), ignore_errors=True)
    if RUN_MADE_HERE:
        shutil.rmtree(RUN, ignore_errors=True)
        shutil.rmtree(postgres.socket_folder(RUN / "postgres"), ignore_errors=True)
