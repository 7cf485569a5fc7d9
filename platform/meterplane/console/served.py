"""Models: what is on offer, how each is reached and read, and within which limits.

Guarantees: a form is stored only when the whole catalog stays without a fault, by the same check as
a catalog file; the policies and servings made of it are compiled in that same transaction, so that
gateways act on a saved form at once and on a refused one never.
"""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from meterplane.catalog.entry import entry_of
from meterplane.catalog.models import Model
from meterplane.catalog.queries import over_holds
from meterplane.console import shown
from meterplane.console.model_form import ModelForm
from meterplane.console.over_hold import learned_in_words, over_hold_in_words
from meterplane.console.read_only import ReadOnly
from meterplane.console.site import site
from meterplane.kernel import amounts
from meterplane.policy.compile import recompile_everyone

OFFER = {
    "fields": (
        "name", "display_name", "description", ("is_active", "is_demo"), "created_at",
    ),
    "description": "What callers see. A model needs a published price to be for sale, too."
    " A model that the installation's catalog file names takes what the file says again whenever"
    " that file is read (make up does): change it there as well.",
}  # fmt: skip
REACHED = {
    "fields": ("adapter", "upstream", "targets", "fallbacks", "secret_env"),
    "description": "Which servers hold it, and who answers when none of them can.",
}
READ = {
    "fields": (
        "chat_template", "tokenizer", "parameters", "inputs", "outputs",
        ("bill_errors", "continuous_usage"),
    ),
    "description": "How requests are written for it, and how its use is counted.",
}  # fmt: skip
LIMITS = {
    "fields": (
        ("context_tokens_max", "output_tokens_max", "output_tokens_default"),
        "reserve",
        ("first_byte_timeout_s", "idle_timeout_s", "duration_s_max"),
        ("in_flight_max", "queue_max", "queue_s_max", "priority_levels"),
    ),
    "description": "How much one request may ask for, and how long it may take.",
}
HELD = {
    "fields": ("shown_learned", "shown_over_hold"),
    "description": "What requests of the last seven days held in budgets above what they cost in"
    " the end: while they run, nobody else can spend it. Read once an hour.",
}


@admin.register(Model, site=site)
class ModelPage(ReadOnly):
    """The catalog. Models are added with their prices, by the catalog file; here they change."""

    form = ModelForm
    list_display = (
        "name", "display_name", "adapter", "shown_targets", "shown_fallbacks", "shown_mean",
        "is_active",
    )  # fmt: skip
    list_filter = ("adapter", "is_active")
    search_fields = ("name", "display_name", "upstream")
    # Usage is recorded and priced under the name.
    readonly_fields = ("name", "created_at", "shown_learned", "shown_over_hold")
    fieldsets = (
        ("Offer", OFFER),
        ("How it is reached", REACHED),
        ("How it is read", READ),
        ("Limits", LIMITS),
        ("Reservations", HELD),
    )

    def get_queryset(self, request: HttpRequest) -> "QuerySet[Model]":
        rows: QuerySet[Model] = super().get_queryset(request).prefetch_related("over_holds")
        return rows

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request, obj)

    def save_model(self, request: HttpRequest, row: Model, form: ModelForm, change: bool) -> None:
        """Store the form, and compile what the gateways read of it."""
        super().save_model(request, row, form, change)
        recompile_everyone()

    @shown.column(description="Targets")
    def shown_targets(self, row: Model) -> str:
        """Each with its share of the requests."""
        targets = entry_of(row).targets
        if not targets:
            return "default"
        whole = sum(target.weight for target in targets)
        return ", ".join(
            f"{target.name} {target.weight}/{whole}" if len(targets) > 1 else target.name
            for target in targets
        )

    @shown.column(description="Mean over-hold")
    def shown_mean(self, row: Model) -> str:
        """One a currency."""
        found = [shown.nano(each.mean_nano, each.currency) for each in over_holds(row)]
        return ", ".join(found) or amounts.NOTHING

    @shown.column(description="Learned from history")
    def shown_learned(self, row: Model) -> str:
        return learned_in_words(row)

    @shown.column(description="Held above cost")
    def shown_over_hold(self, row: Model) -> str:
        return over_hold_in_words(over_holds(row))

    @shown.column(description="Falls back to")
    def shown_fallbacks(self, row: Model) -> str:
        return ", ".join(entry_of(row).fallbacks) or "—"
