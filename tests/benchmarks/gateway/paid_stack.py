"""PostgreSQL and Redis for a run, migrated, with one organisation that may call the upstream.

Its key has a rate limit and a budget of its own, its project and itself have a budget each: all of
what admission checks is checked, and none of it is ever reached. The servers are the embedded ones,
as in the tests; PostgreSQL does not sync, for no request waits for it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from meterplane.stack.embedded import postgres, redis
from tests import environment
from tests.benchmarks.gateway.processes import Processes
from tests.benchmarks.gateway.workload import MODELS

ROOT = Path(__file__).resolve().parents[3]
BUDGET_NANO = 10**15  # a million dollars, at 18 millionths a request
REQUESTS_PER_MINUTE = 60_000_000  # one each microsecond
BURST = 10_000_000
PRICES = {"input_token": "0.00000015", "output_token": "0.0000006", "request": "0"}


def start_servers(processes: Processes, core: int) -> list[int]:
    """PostgreSQL and the two Redis, answering. Returns their process ids."""
    home = environment.HOME
    postgres.prepare(home / "postgres", environment.SUPERUSER_PASSWORD)
    admin = environment.database_url("postgres", "postgres")
    command = postgres.postgres_command(home / "postgres", durable=False)
    server = processes.start(
        "postgres",
        command.argv,
        core=core,
        env=os.environ | command.env,
        account=command.account(),
        folder=home,
    )
    pids = [server.pid]
    processes.wait_until(lambda: postgres.is_ready(admin), "postgres", server)
    roles: tuple[redis.Role, ...] = ("broker", "admission")
    for role in roles:
        redis_home = home / f"redis-{role}"
        argv = redis.redis_command(redis_home, role=role, password=environment.REDIS_PASSWORD).argv
        server = processes.start(f"redis-{role}", argv, core=core)
        url = environment.redis_url(role)
        processes.wait_until(lambda url=url: redis.is_ready(url), f"redis-{role}", server)  # type: ignore[misc]
        pids.append(server.pid)
    return pids


def migrate() -> None:
    """Roles, database and tables."""
    admin = environment.database_url("postgres", "postgres")
    postgres.create_roles(admin, environment.PASSWORDS, ROOT / "infra/postgres/roles.sql")
    postgres.create_database(admin, environment.DATABASE, ROOT / "infra/postgres/database.sql")
    owner = {"DATABASE_URL": environment.database_url("meterplane_owner")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), "migrate", "--verbosity", "0"],
        env=os.environ | owner,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"the database could not be migrated:\n{done.stderr[-2000:]}")


def sell(folder: Path) -> str:
    """Put the models on sale and let an organisation in. Returns its key's secret."""
    import django

    django.setup()
    from django.db import connections

    from billing.pricing.catalog_prices import publish_catalog_prices
    from meterplane.catalog.sync import sync_catalog
    from tenants.keys import issue_key
    from tenants.limits import set_limit
    from tenants.onboard import create_organisation

    catalog = folder / "catalog.json"
    catalog.write_text(json.dumps({"models": [_entry(name) for name in MODELS]}))
    sync_catalog(catalog)
    publish_catalog_prices(catalog)
    made = create_organisation(
        slug="bench",
        name="Bench",
        owner_email="owner@bench.example",
        owner_password="a password for nobody",
        monthly_budget_nano=BUDGET_NANO,
    )
    tenant_id = made.organisation.id
    set_limit(
        tenant_id=tenant_id, level="project", scope_id=made.project.id, kind="spend",
        window="month", amount=BUDGET_NANO,
    )  # fmt: skip
    set_limit(
        tenant_id=tenant_id, level="organisation", scope_id=tenant_id, kind="requests",
        window="minute", amount=REQUESTS_PER_MINUTE, burst=BURST,
    )  # fmt: skip
    issued = issue_key(
        tenant_id=tenant_id,
        project_id=made.project.id,
        name="bench",
        monthly_budget_nano=BUDGET_NANO,
    )
    connections.close_all()  # PostgreSQL ends when its last client has gone
    return issued.secret


def _entry(name: str) -> dict[str, object]:
    """A model of the catalog. No targets: the gateway's own servers."""
    return {
        "name": name,
        "display_name": name,
        "upstream": name,
        "adapter": "openai",
        "context_tokens_max": 8192,
        "output_tokens_max": 1024,
        "output_tokens_default": 256,
        "prices": PRICES,
    }
