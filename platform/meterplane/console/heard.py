"""What the payment provider told us: the inbox of its events, and having one processed again.

An event is a hint to read an object again, so processing one twice, or too late, does no harm.
"""

import json

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from billing.payments.inbox import process_again
from billing.payments.models import WebhookEvent
from meterplane.console import shown
from meterplane.console.read_only import ReadOnly
from meterplane.console.site import site

STATE_LABELS = {"processed": "success", "waiting": "info", "failing": "danger"}


class StateFilter(admin.SimpleListFilter):
    """As an operator asks: what hangs, and what was never delivered."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [("waiting", "Waiting"), ("failing", "Failing"), ("processed", "Processed")]

    def queryset(
        self, request: HttpRequest, queryset: "QuerySet[WebhookEvent]"
    ) -> "QuerySet[WebhookEvent]":
        if self.value() == "processed":
            return queryset.filter(processed_at__isnull=False)
        if self.value() in ("waiting", "failing"):
            queryset = queryset.filter(processed_at__isnull=True)
        if self.value() == "failing":
            return queryset.filter(failures__gt=0)
        return queryset


@admin.register(WebhookEvent, site=site)
class WebhookEventPage(ReadOnly):
    """Newest first. What is processed again is chosen in the list."""

    list_display = (
        "event_id", "type", "received_at", "processed_at", "shown_state", "outcome", "failures",
    )  # fmt: skip
    list_filter = (StateFilter, "origin", "type", "received_at")
    search_fields = ("event_id", "type", "outcome", "failure")
    ordering = ("-received_at",)
    fields = (
        "event_id", "type", "origin", "received_at", "processed_at", "outcome", "failures",
        "failure", "try_at", "shown_payload",
    )  # fmt: skip
    readonly_fields = fields
    actions = ("process_these_again",)

    @shown.column(description="State", label=STATE_LABELS)
    def shown_state(self, row: WebhookEvent) -> tuple[str, str]:
        if row.processed_at is not None:
            return "processed", "Processed"
        return ("failing", "Failing") if row.failures else ("waiting", "Waiting")

    @shown.column(description="Payload")
    def shown_payload(self, row: WebhookEvent) -> str:
        told = json.dumps(row.payload, indent=2, ensure_ascii=False)
        return format_html('<pre class="whitespace-pre-wrap text-xs">{}</pre>', told)

    @admin.action(description="Process again: read what they are about anew")
    def process_these_again(self, request: HttpRequest, rows: "QuerySet[WebhookEvent]") -> None:
        for row in rows:
            process_again(row.event_id)
            self.note(request, row, "processed again")
            messages.success(request, f"{row.event_id} is processed again")
