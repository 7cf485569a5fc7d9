"""Organisations, their projects, members and keys. Standing and revocation go through their verbs.

Actions are POSTs with a CSRF token: an Unfold row action would be a link, and a link can be clicked
by somebody else's page.
"""

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from billing.credits.models import CreditHold
from meterplane.console import shown
from meterplane.console.collected import organisation_terms
from meterplane.console.read_only import ReadOnly, ReadOnlyInline
from meterplane.console.site import site
from meterplane.console.taxed import organisation_taxes, taxes_in_words
from meterplane.policy.hold_to_credit import hold_to_credit, release_from_credit
from tenants.keys import revoke_key
from tenants.models import ApiKey, Limit, Member, Organisation, Project
from tenants.queries import monthly_budget_nano
from tenants.scoping import tenant_scope
from tenants.standing import set_standing

STANDING_LABELS = {"active": "success", "past_due": "warning", "suspended": "danger"}
KEY_LABELS = {"active": "success", "revoked": "danger"}


class ProjectInline(ReadOnlyInline):
    """Projects of an organisation."""

    model = Project
    fields = ("slug", "name", "created_at")
    tab = True


class LimitInline(ReadOnlyInline):
    """What differs from the plan, at any scope of an organisation."""

    model = Limit
    fields = (
        "level", "scope_id", "model", "kind", "window", "amount", "burst", "mode", "raised_to",
        "raised_until",
    )  # fmt: skip
    tab = True


class MemberInline(ReadOnlyInline):
    """Who belongs to an organisation, and as what."""

    model = Member
    fields = ("user", "role", "created_at")
    tab = True


@admin.register(Organisation, site=site)
class OrganisationPage(ReadOnly):
    """Tenants."""

    list_display = ("header", "shown_standing", "currency", "plan", "budget", "created_at")
    list_filter = ("standing", "is_demo")
    search_fields = ("slug", "name")
    actions = ("suspend", "resume", "hold", "release")
    inlines = (ProjectInline, MemberInline, LimitInline)
    fields = (
        "id", "slug", "name", "currency", "standing", "standing_reason", "plan", "budget",
        "held_to_credit", "priority", "weight", "taxes", "is_demo", "created_at",
    )  # fmt: skip
    readonly_fields = ("id", "budget", "held_to_credit", "taxes")
    actions_detail = ("change_taxes", "change_terms")
    list_select_related = ("plan",)

    @shown.column(description="Organisation", header=True, ordering="name")
    def header(self, row: Organisation) -> list[str]:
        return [row.name, row.slug, row.name[:1].upper()]

    @shown.column(description="Standing", label=STANDING_LABELS, ordering="standing")
    def shown_standing(self, row: Organisation) -> tuple[str, str]:
        return row.standing, Organisation.Standing(row.standing).label

    @shown.column(description="Monthly budget")
    def budget(self, row: Organisation) -> str:
        return shown.nano(monthly_budget_nano(row), row.currency)

    @shown.column(description="Taxes")
    def taxes(self, row: Organisation) -> str:
        with tenant_scope(row.id):
            return taxes_in_words()

    @shown.action(description="Taxes", url_path="taxes", icon="percent")
    def change_taxes(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return organisation_taxes(request, self.row_or_404(request, object_id))

    @shown.column(description="Held to its credit", boolean=True)
    def held_to_credit(self, row: Organisation) -> bool:
        return bool(CreditHold.objects.filter(tenant_id=row.id, is_held=True).exists())

    @admin.action(description="Hold to their credit: what it does not cover is refused")
    def hold(self, request: HttpRequest, rows: "QuerySet[Organisation]") -> None:
        for row in rows:
            self._say(request, row, "held to its credit", hold_to_credit(row.id))

    @admin.action(description="No longer hold to their credit: what it does not cover is invoiced")
    def release(self, request: HttpRequest, rows: "QuerySet[Organisation]") -> None:
        for row in rows:
            self._say(request, row, "no longer held to its credit", release_from_credit(row.id))

    def _say(self, request: HttpRequest, row: Organisation, what: str, is_new: bool) -> None:
        if is_new:
            self.note(request, row, what)
            messages.success(request, f"{row.name} is {what}")
        else:
            messages.info(request, f"{row.name} was {what} already")

    @shown.action(description="Payment", url_path="payment", icon="account_balance")
    def change_terms(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return organisation_terms(request, self.row_or_404(request, object_id))

    @admin.action(description="Suspend: their keys stop working at once")
    def suspend(self, request: HttpRequest, rows: "QuerySet[Organisation]") -> None:
        self._set(request, rows, Organisation.Standing.SUSPENDED, "suspended by the operator")

    @admin.action(description="Resume: their keys work again")
    def resume(self, request: HttpRequest, rows: "QuerySet[Organisation]") -> None:
        self._set(request, rows, Organisation.Standing.ACTIVE, "")

    def _set(
        self, request: HttpRequest, rows: "QuerySet[Organisation]", standing: str, reason: str
    ) -> None:
        for row in rows:
            if set_standing(tenant_id=row.id, standing=standing, reason=reason):
                self.note(request, row, f"standing set to {standing}")
                messages.success(request, f"{row.name} is {standing}")
            else:
                messages.info(request, f"{row.name} was {standing} already")


@admin.register(Project, site=site)
class ProjectPage(ReadOnly):
    """Projects of all organisations."""

    list_display = ("name", "slug", "tenant", "created_at")
    list_select_related = ("tenant",)
    list_filter = ("tenant",)
    search_fields = ("name", "slug", "tenant__slug")
    fields = ("id", "tenant", "slug", "name", "created_at")
    readonly_fields = ("id",)


@admin.register(Member, site=site)
class MemberPage(ReadOnly):
    """Who may do what, where."""

    list_display = ("user", "tenant", "role", "created_at")
    list_select_related = ("tenant", "user")
    list_filter = ("role", "tenant")
    search_fields = ("user__email", "tenant__slug")
    fields = ("tenant", "user", "role", "created_at")


@admin.register(ApiKey, site=site)
class ApiKeyPage(ReadOnly):
    """Keys, without their digests: `fields` names what may be seen."""

    list_display = ("name", "masked", "tenant", "project", "shown_status", "created_at")
    list_select_related = ("tenant", "project")
    list_filter = ("status", "tenant")
    search_fields = ("name", "last4", "tenant__slug")
    actions = ("revoke",)
    fields = (
        "id", "tenant", "project", "name", "masked", "status", "created_by", "created_at",
        "expires_at", "revoked_at",
    )  # fmt: skip
    readonly_fields = ("id", "masked")

    @shown.column(description="Key")
    def masked(self, row: ApiKey) -> str:
        return f"{row.prefix}…{row.last4}"

    @shown.column(description="Status", label=KEY_LABELS, ordering="status")
    def shown_status(self, row: ApiKey) -> tuple[str, str]:
        return row.status, ApiKey.Status(row.status).label

    @admin.action(description="Revoke for ever")
    def revoke(self, request: HttpRequest, rows: "QuerySet[ApiKey]") -> None:
        for row in rows:
            revoke_key(tenant_id=row.tenant_id, key_id=row.id)
            self.note(request, row, "revoked")
            messages.success(request, f"{row.name} of {row.tenant} is revoked")
