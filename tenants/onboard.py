"""Bring an organisation into being: itself, its first project and its owner, or nothing."""

from dataclasses import dataclass
from uuid import UUID

from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.validators import validate_email, validate_slug

from meterplane.kernel import money
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from tenants import policy_port
from tenants.limits import set_limit
from tenants.models import Member, Organisation, Project
from tenants.plans import standard_plan
from tenants.scoping import system_scope, tenant_scope
from tenants.synthetic import SLUGS


@dataclass(frozen=True, slots=True)
class Onboarded:
    """What `create_organisation` made."""

    organisation: Organisation
    project: Project
    owner: User


def create_organisation(
    *,
    slug: str,
    name: str,
    owner_email: str,
    owner_password: str,
    currency: str = "USD",
    monthly_budget_nano: int | None = None,
    is_demo: bool = False,
    synthetic: bool = False,
) -> Onboarded:
    """Create an organisation with a project `default` and an owner.

    An existing user of that e-mail becomes the owner and keeps their password. `synthetic`: it is
    the installation's own (`tenants.synthetic`), whose slugs are nobody else's.
    Raises `CallerError` `slug_invalid`, `slug_taken`, `email_invalid`, `currency_unknown`.
    """
    if (slug in SLUGS) != synthetic:
        raise CallerError("slug_taken", f"{slug!r} is the installation's own.", status=409)
    _check(slug, owner_email, currency)
    with system_scope("onboarding asks whether a slug is taken"):
        if Organisation.objects.filter(slug=slug).exists():
            raise CallerError("slug_taken", f"There is an organisation {slug!r}.", status=409)
        owner = _owner(owner_email, owner_password)
        tenant_id = uuid7()
        with tenant_scope(tenant_id):
            organisation = Organisation.objects.create(
                id=tenant_id,
                slug=slug,
                name=name,
                currency=currency,
                plan=standard_plan(),
                is_demo=is_demo,
            )
            project = Project.objects.create(tenant_id=tenant_id, slug="default", name="Default")
            Member.objects.create(tenant_id=tenant_id, user=owner, role=Member.Role.OWNER)
            policy_port.recompile(tenant_id)
            if monthly_budget_nano is not None:
                set_limit(
                    tenant_id=tenant_id,
                    level="organisation",
                    scope_id=tenant_id,
                    kind="spend",
                    window="month",
                    amount=monthly_budget_nano,
                )
    return Onboarded(organisation, project, owner)


def create_project(*, tenant_id: UUID, slug: str, name: str) -> Project:
    """Add a project. Raises `CallerError` `slug_invalid` or `slug_taken`."""
    _check_slug(slug)
    with tenant_scope(tenant_id):
        if Project.objects.filter(slug=slug).exists():
            raise CallerError("slug_taken", f"There is a project {slug!r} here.", status=409)
        project: Project = Project.objects.create(tenant_id=tenant_id, slug=slug, name=name)
    return project


def add_member(*, tenant_id: UUID, email: str, password: str, role: str) -> Member:
    """Give a user, new or known, a role in the organisation."""
    if role not in Member.Role.values:
        raise CallerError("role_unknown", f"Choose one of {', '.join(Member.Role.values)}.")
    with tenant_scope(tenant_id):
        member: Member
        member, _ = Member.objects.update_or_create(
            tenant_id=tenant_id, user=_owner(email, password), defaults={"role": role}
        )
    return member


def _owner(email: str, password: str) -> User:
    users = get_user_model().objects
    known = users.filter(username=email.lower()).first()
    return known or users.create_user(
        username=email.lower(), email=email.lower(), password=password
    )


def _check_slug(slug: str) -> None:
    try:
        validate_slug(slug)
    except ValidationError:
        raise CallerError(
            "slug_invalid", "Use letters, digits, - and _ only.", field="slug"
        ) from None


def _check(slug: str, email: str, currency: str) -> None:
    _check_slug(slug)
    try:
        validate_email(email)
    except ValidationError:
        raise CallerError(
            "email_invalid", f"{email!r} is not an e-mail address.", field="owner_email"
        ) from None
    try:
        money.minor_digits(currency)
    except money.UnknownCurrency as unknown:
        raise CallerError("currency_unknown", str(unknown), field="currency") from None
