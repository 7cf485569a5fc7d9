"""Credit of all organisations: grants with what became of them, and a form to grant more.

Guarantees: the form is stored by the verb that the control API calls, with its entry in the ledger;
what it would refuse is refused beside its field. A form sent twice grants once: it carries the name
of its grant. Nothing here changes what was granted.
"""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.widgets import UnfoldAdminTextInputWidget

from billing.credits.grant import grant
from billing.credits.models import CreditGrant, CreditMovement, CreditRecurrence
from billing.credits.queries import state_of
from billing.credits.terms import GrantTerms, check_grant
from meterplane.console import shown, typed
from meterplane.console.read_only import ReadOnly, ReadOnlyInline
from meterplane.console.site import site
from meterplane.kernel import amounts, clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7

KIND_LABELS = {"purchased": "success", "promotional": "info"}
STATE_LABELS = {"scheduled": "info", "live": "success", "used": "info", "expired": "warning"}
FIELD_OF = {"models": "models_only", "meters": "meters_only"}
TYPED = (
    "tenant", "kind", "amount", "priority", "effective_at", "expires_at", "rollover_max",
    "models_only", "meters_only", "reason", "named",
)  # fmt: skip
HELP = {
    "priority": "0 is drawn first, 100 last.",
    "effective_at": "UTC. Empty: at once.",
    "expires_at": "UTC, itself excluded. Empty: never.",
    "models_only": "Names, with commas between; empty: all.",
    "meters_only": "As input_tokens, output_tokens or requests; empty: all.",
    "reason": "The customer reads it in the portal and on invoices.",
}


def _name() -> str:
    return f"console:{uuid7()}"


class GrantForm(forms.ModelForm):  # type: ignore[type-arg]
    """What a grant says, with amounts as people write them.

    Its organisation is a field that the page adds: none can be read when a class is made.
    """

    amount = forms.CharField(
        max_length=40,
        widget=UnfoldAdminTextInputWidget,
        help_text="In the organisation's currency, as 100 or 12.50.",
    )
    rollover_max = forms.CharField(
        max_length=40,
        required=False,
        widget=UnfoldAdminTextInputWidget,
        help_text="How much of what is left goes over to as long again. Empty: nothing.",
    )
    named = forms.CharField(widget=forms.HiddenInput, initial=_name, max_length=120)

    class Meta:
        model = CreditGrant
        fields = (
            "kind", "priority", "effective_at", "expires_at", "models_only", "meters_only",
            "reason",
        )  # fmt: skip
        help_texts = HELP
        widgets = dict.fromkeys(("models_only", "meters_only"), UnfoldAdminTextInputWidget)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "effective_at" in self.fields:
            self.fields["effective_at"].required = False

    def clean(self) -> dict[str, Any]:
        """By the check of the verb."""
        said: dict[str, Any] = super().clean() or self.cleaned_data
        if self.errors:
            return said
        try:
            check_grant(self.terms(), said["tenant"].currency)
        except CallerError as refused:
            self.add_error(FIELD_OF.get(refused.field or "", refused.field), refused.message)
        return said

    def terms(self) -> GrantTerms:
        """What the verb takes. Raises `CallerError`."""
        said = self.cleaned_data
        currency = said["tenant"].currency
        rollover = said["rollover_max"]
        return GrantTerms(
            kind=said["kind"],
            currency=currency,
            amount_minor=typed.minor(said["amount"], currency, "amount"),
            priority=said["priority"],
            effective_at=said["effective_at"],
            expires_at=said["expires_at"],
            models_only=tuple(said["models_only"] or ()),
            meters_only=tuple(said["meters_only"] or ()),
            rollover_max_minor=typed.minor(rollover, currency, "rollover_max")
            if rollover
            else None,
            reason=said["reason"],
        )


class MovementInline(ReadOnlyInline):
    """What became of a grant."""

    model = CreditMovement
    fields = ("recorded_at", "kind", "amount", "at", "invoice_id")
    readonly_fields = ("amount",)
    ordering = ("-id",)

    @shown.column(description="Amount")
    def amount(self, row: CreditMovement) -> str:
        return amounts.minor(row.amount_minor, row.grant.currency)


@admin.register(CreditGrant, site=site)
class GrantPage(ReadOnly):
    """Grants, newest first."""

    form = GrantForm
    list_display = (
        "created_at", "tenant", "shown_kind", "shown_amount", "left", "state", "expires_at",
        "priority", "reason",
    )  # fmt: skip
    list_select_related = ("tenant", "remaining")
    list_filter = ("kind", "tenant", "created_at")
    search_fields = ("tenant__slug", "tenant__name", "reason", "idempotency_key")
    inlines = (MovementInline,)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """What is typed of a new one; all that is known of one that is there."""
        if obj is None:
            return TYPED
        return (
            "id", "tenant", "kind", "shown_amount", "left", "state", "priority", "effective_at",
            "expires_at", "models_only", "meters_only", "shown_rollover", "recurrence",
            "occurrence", "rolled_from", "reason", "created_at", "created_by", "idempotency_key",
        )  # fmt: skip

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if obj is None else self.get_fields(request, obj)

    def get_inlines(self, request: HttpRequest, obj: Any) -> tuple[Any, ...]:
        return () if obj is None else self.inlines

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request, obj)

    def save_model(
        self, request: HttpRequest, row: CreditGrant, form: GrantForm, change: bool
    ) -> None:
        """Grant by the verb."""
        row.pk = grant(
            tenant_id=form.cleaned_data["tenant"].id,
            terms=form.terms(),
            idempotency_key=form.cleaned_data["named"],
            created_by=f"operator {request.user}"[:120],
        )

    @shown.column(description="Kind", label=KIND_LABELS, ordering="kind")
    def shown_kind(self, row: CreditGrant) -> tuple[str, str]:
        return row.kind, row.get_kind_display()

    @shown.column(description="Amount", ordering="amount_minor")
    def shown_amount(self, row: CreditGrant) -> str:
        return amounts.minor(row.amount_minor, row.currency)

    @shown.column(description="Left", ordering="remaining__remaining_minor")
    def left(self, row: CreditGrant) -> str:
        return amounts.minor(row.remaining.remaining_minor, row.currency)

    @shown.column(description="Rolls over at most")
    def shown_rollover(self, row: CreditGrant) -> str:
        if row.rollover_max_minor is None:
            return amounts.NOTHING
        return amounts.minor(row.rollover_max_minor, row.currency)

    @shown.column(description="State", label=STATE_LABELS)
    def state(self, row: CreditGrant) -> tuple[str, str]:
        state = state_of(row, row.remaining.remaining_minor, clock.now())
        return state, state.capitalize()


@admin.register(CreditMovement, site=site)
class MovementPage(ReadOnly):
    """Every movement of every grant, newest first."""

    list_display = ("recorded_at", "tenant", "kind", "amount", "at", "grant", "invoice_id")
    list_select_related = ("tenant", "grant")
    list_filter = ("kind", "tenant", "recorded_at")
    search_fields = ("tenant__slug", "invoice_id", "grant__reason")
    fields = (
        "id", "tenant", "grant", "kind", "amount", "invoice_id", "position", "source_id", "at",
        "recorded_at",
    )  # fmt: skip
    readonly_fields = ("id", "amount")

    @shown.column(description="Amount", ordering="amount_minor")
    def amount(self, row: CreditMovement) -> str:
        return amounts.minor(row.amount_minor, row.grant.currency)


@admin.register(CreditRecurrence, site=site)
class RecurrencePage(ReadOnly):
    """Grants that come again each month."""

    list_display = ("__str__", "tenant", "kind", "starts_at", "ends_at", "term_months", "reason")
    list_select_related = ("tenant",)
    list_filter = ("kind", "tenant")
