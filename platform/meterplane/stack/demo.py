"""The demo organisation: who is in it, its projects and keys, and the operator beside it.

Idempotent: every start calls it, and what is there stays. Secrets that are shown again at each
start live in the installation's private file; a key whose secret was lost is replaced.
"""

from datetime import datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction

from billing.pricing.catalog_prices import publish_catalog_prices
from meterplane.catalog.meters_sync import sync_meters
from meterplane.catalog.sync import sync_catalog
from meterplane.contracts import api_key
from meterplane.kernel import clock
from meterplane.policy.compile import recompile_everyone
from meterplane.stack import installation
from meterplane.stack.demo_usage import Caller, Habit
from meterplane.stack.installation import Login
from meterplane.stack.layout import ROOT, Layout
from tenants.keys import issue_key, issue_operator_key, operator_key_by_secret
from tenants.limits import set_limit
from tenants.models import ApiKey, Organisation, Project
from tenants.onboard import create_organisation, create_project
from tenants.queries import organisation_by_slug
from tenants.scoping import system_scope, tenant_scope

CATALOG = ROOT / "infra" / "triton" / "catalog.json"
SLUG = "demo"
NAME = "Tidewater Labs"
MONTHLY_BUDGET_NANO = 10 * 10**9  # USD 10: a quarter of it is the demo's own month
REQUESTS_PER_MINUTE, REQUEST_BURST = 300_000, 5_000
OPERATOR_KEY_NAME = "local stack"
PRINTED_KEY = "Quickstart"

# Project, key and habit of each caller in the history. Names are what the portal shows.
CALLERS: tuple[tuple[str, str, str, Habit], ...] = (
    ("support", "Support assistant", "Assistant, production", "support"),
    ("search", "Product search", "Search API", "search"),
    ("search", "Product search", "Nightly indexer", "indexing"),
    ("research", "Research", "Notebooks", "notebook"),
)


def provide_demo(layout: Layout) -> None:
    """Catalog, prices, the operator, the demo organisation and the secrets to sign in with."""
    sync_catalog(CATALOG)
    sync_meters(CATALOG)
    publish_catalog_prices(CATALOG)
    recompile_everyone()
    secrets = installation.load(layout)
    _operator(secrets.operator)
    if operator_key_by_secret(secrets.admin_key) is None:
        installation.update(layout, admin_key=issue_operator_key(OPERATOR_KEY_NAME))
    organisation = _organisation(secrets.owner)
    if not _is_live(organisation.id, secrets.demo_api_key):
        installation.update(layout, demo_api_key=_printed_key(organisation.id))


def history_starts_at(now: datetime) -> datetime:
    """The first of last month: 30 days at least, and a whole month to be invoiced."""
    this_month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return min((this_month - timedelta(days=1)).replace(day=1), _midnight(now - timedelta(days=30)))


def callers(organisation: Organisation) -> list[Caller]:
    """The keys whose habits make the history."""
    with tenant_scope(organisation.id):
        by_name = {key.name: key for key in ApiKey.objects.all()}
    return [
        Caller(organisation.id, by_name[name].project_id, by_name[name].id, habit)
        for _, _, name, habit in CALLERS
        if name in by_name
    ]


def demo_organisation() -> Organisation | None:
    """The demo, if it was made."""
    with system_scope("the demo is looked up by its slug"):
        return organisation_by_slug(SLUG)


@transaction.atomic
def _organisation(owner: Login) -> Organisation:
    existing = demo_organisation()
    if existing is not None:
        return existing
    with clock.frozen(history_starts_at(clock.now())):
        made = create_organisation(
            slug=SLUG,
            name=NAME,
            owner_email=owner.email,
            owner_password=owner.password,
            monthly_budget_nano=MONTHLY_BUDGET_NANO,
            is_demo=True,
        )
        _let_load_be_tried(made.organisation)
        projects: dict[str, Project] = {}
        for slug, title, key_name, _ in CALLERS:
            if slug not in projects:
                projects[slug] = create_project(
                    tenant_id=made.organisation.id, slug=slug, name=title
                )
            issue_key(
                tenant_id=made.organisation.id,
                project_id=projects[slug].id,
                name=key_name,
                created_by=made.owner.id,
            )
    return made.organisation


def _let_load_be_tried(organisation: Organisation) -> None:
    """A newcomer's first load test should find the product's limits, not the demo's."""
    set_limit(
        tenant_id=organisation.id,
        level="organisation",
        scope_id=organisation.id,
        kind="requests",
        window="minute",
        amount=REQUESTS_PER_MINUTE,
        burst=REQUEST_BURST,
    )


def _operator(login: Login) -> None:
    if not User.objects.filter(username=login.email).exists():
        User.objects.create_superuser(login.email, login.email, login.password)


def _is_live(tenant_id: UUID, secret: str) -> bool:
    if not secret:
        return False
    digest = api_key.digest(secret, settings.API_KEY_PEPPER)
    with tenant_scope(tenant_id):
        return ApiKey.objects.filter(digest=digest, status=ApiKey.Status.ACTIVE).exists()


def _printed_key(tenant_id: UUID) -> str:
    with tenant_scope(tenant_id):
        project = Project.objects.get(slug="default")
    return issue_key(tenant_id=tenant_id, project_id=project.id, name=PRINTED_KEY).secret


def _midnight(instant: datetime) -> datetime:
    return instant.replace(hour=0, minute=0, second=0, microsecond=0)
