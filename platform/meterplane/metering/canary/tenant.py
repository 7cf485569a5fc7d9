"""The canary's organisation and its key, made through the doors everybody's are made through.

Nothing secret is stored: each run gives the one key another secret, which ends by itself within
minutes should the run die. A month of canaries costs cents; its budget bounds what a bug could.
"""

import secrets
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.keys import issue_key, renew_key
from tenants.models import ApiKey, Organisation, Project
from tenants.onboard import create_organisation
from tenants.queries import organisation_by_slug
from tenants.scoping import system_scope, tenant_scope
from tenants.synthetic import CANARY_SLUG

NAME = "Meterplane canary"
OWNER = "canary@meterplane.invalid"  # nobody: .invalid is nobody's domain (RFC 2606)
KEY_NAME = "Canary"
MONTHLY_BUDGET_NANO = 10 * 10**9
KEY_LIVES = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Canary:
    """Who sends the known requests, and with what; `secret` is void after the run."""

    tenant_id: UUID
    key_id: UUID
    secret: str


def provide_canary() -> Canary:
    """The organisation, made when there is none yet, with a fresh secret of its key."""
    tenant_id = _organisation().id
    expires_at = clock.now() + KEY_LIVES
    with tenant_scope(tenant_id):
        key = ApiKey.objects.filter(name=KEY_NAME).order_by("created_at").first()
        project = Project.objects.get(slug="default")
    if key is not None:
        issued = renew_key(tenant_id=tenant_id, key_id=key.id, expires_at=expires_at)
    else:
        issued = issue_key(
            tenant_id=tenant_id, project_id=project.id, name=KEY_NAME, expires_at=expires_at
        )
    return Canary(tenant_id, issued.key.id, issued.secret)


def _organisation() -> Organisation:
    found = _known()
    if found is not None:
        return found
    try:
        return create_organisation(
            slug=CANARY_SLUG,
            name=NAME,
            owner_email=OWNER,
            owner_password=secrets.token_urlsafe(32),
            monthly_budget_nano=MONTHLY_BUDGET_NANO,
            synthetic=True,
        ).organisation
    except CallerError:
        found = _known()  # another worker made it meanwhile
        if found is None:
            raise
        return found


def _known() -> Organisation | None:
    with system_scope("the canary looks for its organisation"):
        return organisation_by_slug(CANARY_SLUG)
