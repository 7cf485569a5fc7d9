"""Alerts of all organisations: what was told of whose limits, and whether it was delivered."""

from django.contrib import admin

from meterplane.console import shown
from meterplane.console.read_only import ReadOnly
from meterplane.console.site import site
from meterplane.kernel import amounts
from meterplane.policy.models import Alert

THRESHOLD_LABELS = {
    "50": "info", "80": "warning", "100": "danger", "hit": "danger", "balance": "warning",
}  # fmt: skip


@admin.register(Alert, site=site)
class AlertPage(ReadOnly):
    """Newest first."""

    list_display = (
        "raised_at", "tenant", "shown_threshold", "limit", "label", "used_of", "hits",
        "delivered_at",
    )  # fmt: skip
    list_select_related = ("tenant",)
    list_filter = (
        "threshold", "kind", "window", "level", "mode", "raised_at",
        ("delivered_at", admin.EmptyFieldListFilter), "tenant",
    )  # fmt: skip
    search_fields = ("tenant__slug", "label", "model", "scope_id")
    ordering = ("-id",)
    fields = (
        "id", "tenant", "threshold", "level", "scope_id", "model", "kind", "window", "mode",
        "label", "used", "amount", "hits", "raised_at", "delivered_at",
    )  # fmt: skip
    readonly_fields = ("id",)

    @shown.column(description="Reached", label=THRESHOLD_LABELS, ordering="threshold")
    def shown_threshold(self, row: Alert) -> tuple[str, str]:
        return row.threshold, Alert.Threshold(row.threshold).label

    @shown.column(description="Limit")
    def limit(self, row: Alert) -> str:
        model = f" of {row.model}" if row.model else ""
        return f"{row.level} {row.kind}/{row.window}{model}"

    @shown.column(description="Used")
    def used_of(self, row: Alert) -> str:
        return f"{_said(row, row.used)} of {_said(row, row.amount)}"


def _said(row: Alert, quantity: int | None) -> str:
    if quantity is None:
        return amounts.NOTHING
    if row.kind == "spend":
        return str(shown.nano(quantity, row.tenant.currency))
    return f"{quantity:,}"
