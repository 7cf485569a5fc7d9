"""The ledger: entries with their legs, and what each account holds. To look at."""

from django.contrib import admin

from billing.ledger.accounts import account_of
from billing.ledger.models import LedgerBalance, LedgerEntry, LedgerLeg
from meterplane.console import shown
from meterplane.console.read_only import ReadOnly, ReadOnlyInline
from meterplane.console.site import site
from meterplane.kernel import amounts

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
    inlines = (LegInline,)
    fields = (
        "id", "tenant", "kind", "source_id", "currency", "memo", "effective_at", "created_at",
        "leg_count", "content_hash",
    )  # fmt: skip
    readonly_fields = ("id",)


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
