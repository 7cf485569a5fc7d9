"""Rates and budgets from before there were limits go on holding, as limits."""

import psycopg
import pytest
from django.core.management import call_command

from meterplane.policy.compile import recompile
from tenants.keys import issue_key
from tenants.scoping import tenant_scope
from tests import environment
from tests.metering.test_migrations import owner
from tests.tenants.test_keys import compiled

# To the first migration and forward again: everything that was made since is unmade and made.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]


def migrate(*target: str) -> None:
    """To one of ours, or to the newest of all: what rests on ours went with them."""
    with owner():
        call_command("migrate", *target, verbosity=0, interactive=False)


def held(tenant, key_id) -> dict[str, tuple[int, int | None]]:
    with tenant_scope(tenant.id):
        recompile(tenant.id)
    limits = compiled(tenant.id, key_id).limits
    return {f"{e.level} {e.kind} {e.window}": (e.amount, e.burst) for e in limits}


def test_rates_and_budgets_become_limits(onboard):
    acme, globex = onboard("acme"), onboard("globex")
    capped = issue_key(tenant_id=acme.id, project_id=acme.project_id, name="capped").key.id
    migrate("tenants", "0001_initial")
    try:
        with psycopg.connect(environment.database_url("postgres"), autocommit=True) as admin:
            for statement, row_id in (
                ("UPDATE organisation SET requests_per_minute = 60, request_burst = 5", acme.id),
                ("UPDATE organisation SET monthly_budget_nano = 30", acme.id),
                ("UPDATE project SET monthly_budget_nano = 20", acme.project_id),
                ("UPDATE api_key SET monthly_budget_nano = 0", capped),
            ):
                admin.execute(f"{statement} WHERE id = %s".encode(), [row_id])
    finally:
        migrate()
    shared = {
        "organisation requests minute": (60, 5),
        "project spend month": (20, None),
        "organisation spend month": (30, None),
    }
    assert held(acme, acme.key_id) == shared
    assert held(acme, capped) == shared | {"key spend month": (0, None)}
    assert held(globex, globex.key_id) == {"organisation requests minute": (6000, 200)}
