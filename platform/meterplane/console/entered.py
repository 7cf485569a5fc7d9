"""The ledger: entries with their legs, what each account holds, and whether the last audit proved
it. To look at."""

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html_join

from billing.ledger.accounts import account_of
from billing.ledger.audit_night import is_overdue, last_audit
from billing.ledger.models import AuditRun, LedgerBalance, LedgerEntry, LedgerLeg
from meterplane.console import shown
from meterplane.console.read_only import ReadOnly, ReadOnlyInline
from meterplane.console.site import site
from meterplane.kernel import amounts, clock
from tenants.models import Organisation

RUN_LABELS = {"Proved": "success", "Not proved": "danger", "Under way": "warning"}
SIDE_LABELS = {"debit": "info", "credit": "success"}


class LegInline(ReadOnlyInline):
    """What an entry moves: a debit or a credit of each account."""

    model = LedgerLeg
    fields = ("position", "account", "debit", "credit")
    readonly_fields = ("debit", "credit")
    ordering = ("position",)

    @shown.column(description="Debit")
    def debit(self, row: LedgerLeg) -> str:
        return amounts.minor(row.amount_minor, row.currency) if row.amount_minor > 0 else ""

    @shown.column(description="Credit")
    def credit(self, row: LedgerLeg) -> str:
        return amounts.minor(-row.amount_minor, row.currency) if row.amount_minor < 0 else ""


@admin.register(LedgerEntry, site=site)
class EntryPage(ReadOnly):
    """Entries of all organisations, the newest first."""

    list_display = ("kind", "tenant", "source_id", "currency", "memo", "effective_at", "created_at")
    list_select_related = ("tenant",)
    list_filter = ("kind", "currency", "tenant")
    search_fields = ("source_id", "memo", "tenant__slug", "tenant__name")
    list_before_template = "console/ledger_audit.html"
    inlines = (LegInline,)
    fields = (
        "id", "tenant", "kind", "source_id", "currency", "memo", "effective_at", "created_at",
        "leg_count", "content_hash",
    )  # fmt: skip
    readonly_fields = ("id",)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        run = last_audit()
        told = {"alarm": audit_alarm(run), "run": run}
        context = {**(extra_context or {}), "audit": told}
        shown_page: HttpResponse = super().changelist_view(request, context)
        return shown_page


@admin.register(LedgerBalance, site=site)
class BalancePage(ReadOnly):
    """What every account of every organisation holds, on the side it is on."""

    list_display = ("account", "tenant", "currency", "balance", "side", "normal_side", "leg_count")
    list_select_related = ("tenant",)
    list_filter = ("currency", "tenant")
    search_fields = ("account", "tenant__slug", "tenant__name")
    fields = ("tenant", "account", "currency", "balance", "side", "normal_side", "leg_count")
    readonly_fields = ("balance", "side", "normal_side")

    @shown.column(description="Balance", ordering="balance_minor")
    def balance(self, row: LedgerBalance) -> str:
        return amounts.minor(abs(row.balance_minor), row.currency)

    @shown.column(description="Side", label=SIDE_LABELS)
    def side(self, row: LedgerBalance) -> str:
        if row.balance_minor == 0:
            return ""
        return "debit" if row.balance_minor > 0 else "credit"

    @shown.column(description="Normal side")
    def normal_side(self, row: LedgerBalance) -> str:
        return str(account_of(row.account).side)


@admin.register(AuditRun, site=site)
class AuditRunPage(ReadOnly):
    """Each night's audit, and what it found."""

    list_display = ("on", "verdict", "entries", "organisations", "wrong", "finished_at")
    fields = (
        "on", "verdict", "entries", "organisations", "wrong", "started_at", "finished_at",
        "shown_findings",
    )  # fmt: skip
    readonly_fields = fields

    @shown.column(description="Verdict", label=RUN_LABELS)
    def verdict(self, row: AuditRun) -> str:
        if row.holds is None:
            return "Under way"
        return "Proved" if row.holds else "Not proved"

    @shown.column(description="What is wrong")
    def shown_findings(self, row: AuditRun) -> str:
        if not row.findings:
            return "nothing"
        names = dict(
            Organisation.objects.filter(
                id__in={each["organisation"] for each in row.findings}
            ).values_list("id", "slug")
        )
        return format_html_join(
            "",
            "<p><strong>{}</strong> {}: {} ({})</p>",
            (
                (
                    names.get(UUID(each["organisation"]), each["organisation"]),
                    each["subject"],
                    each["what"],
                    each["check"],
                )
                for each in row.findings
            ),
        )


def audit_alarm(run: AuditRun | None) -> str:
    """What is wrong with the last audit; empty where the ledger is proved, or the first is due."""
    if run is not None and run.wrong:
        return "the ledger is not proved"
    if is_overdue(run, clock.now()):
        return "no audit has come to its end since"
    return ""
