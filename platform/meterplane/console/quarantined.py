"""What could not become usage, kept byte by byte for a person to look at; and the canary's runs."""

from typing import Any

import msgspec
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join

from meterplane.console import shown
from meterplane.console.read_only import ReadOnly
from meterplane.console.site import site
from meterplane.contracts import usage
from meterplane.kernel import amounts
from meterplane.metering.models import CanaryRun, UsageQuarantine

PREVIEW_BYTES = 512
ROW_BYTES = 16
REASONS = {
    "no such key": "Of a key nobody issued",
    "a frame of no known kind": "Of no known kind",
    "damaged": "Behind damage",
    "the header": "Without a header",
}


class ReasonFilter(admin.SimpleListFilter):
    """Reasons by what they begin with: some name a byte."""

    title = "reason"
    parameter_name = "reason"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*REASONS.items(), ("other", "Counts, names or times that cannot be")]

    def queryset(
        self, request: HttpRequest, queryset: "QuerySet[UsageQuarantine]"
    ) -> "QuerySet[UsageQuarantine]":
        value = self.value()
        if value in REASONS:
            return queryset.filter(reason__startswith=value)
        if value == "other":
            for known in REASONS:
                queryset = queryset.exclude(reason__startswith=known)
        return queryset


@admin.register(UsageQuarantine, site=site)
class QuarantinePage(ReadOnly):
    """Newest first. Usage in here was served and is billed to nobody."""

    list_display = ("quarantined_at", "reason", "segment_id", "shown_size")
    list_filter = (ReasonFilter, "quarantined_at")
    search_fields = ("reason", "segment_id")
    ordering = ("-quarantined_at",)
    fields = (
        "quarantined_at", "reason", "segment_id", "shown_size", "shown_decoded", "shown_bytes"
    )  # fmt: skip
    readonly_fields = fields

    @shown.column(description="Size")
    def shown_size(self, row: UsageQuarantine) -> str:
        return f"{len(row.payload):,} bytes"

    @shown.column(description="What it says")
    def shown_decoded(self, row: UsageQuarantine) -> str:
        told = decoded(bytes(row.payload))
        if told is None:
            return "It cannot be read as usage."
        return format_html('<pre class="whitespace-pre-wrap">{}</pre>', told)

    @shown.column(description=f"Its first {PREVIEW_BYTES} bytes")
    def shown_bytes(self, row: UsageQuarantine) -> str:
        return format_html('<pre class="font-mono text-xs">{}</pre>', dump(bytes(row.payload)))


@admin.register(CanaryRun, site=site)
class CanaryPage(ReadOnly):
    """Known requests from the door to the roll-ups, each run with its steps."""

    list_display = ("started_at", "shown_verdict", "shown_steps", "shown_visible")
    list_filter = ("passed", "started_at")
    ordering = ("-started_at",)
    fields = ("started_at", "finished_at", "shown_verdict", "shown_visible", "shown_said")
    readonly_fields = fields

    @shown.column(description="Verdict", label={"Passed": "success", "Failed": "danger"})
    def shown_verdict(self, row: CanaryRun) -> str:
        if row.passed is None:
            return "Under way"
        return "Passed" if row.passed else "Failed"

    @shown.column(description="Steps")
    def shown_steps(self, row: CanaryRun) -> str:
        failed = [step["name"] for step in row.steps if not step["passed"]]
        return f"failed: {', '.join(failed)}" if failed else f"{len(row.steps)} passed"

    @shown.column(description="Usage was visible after", ordering="visible_after_ms")
    def shown_visible(self, row: CanaryRun) -> str:
        if row.visible_after_ms is None:
            return amounts.NOTHING
        return f"{row.visible_after_ms:,} ms"

    @shown.column(description="What was found")
    def shown_said(self, row: CanaryRun) -> str:
        return format_html_join(
            "",
            "<p><strong>{}</strong> {}: {}</p>",
            (
                (step["name"], "passed" if step["passed"] else "FAILED", step["said"])
                for step in row.steps
            ),
        )


def decoded(payload: bytes) -> str | None:
    """A frame of the journal, or a staged row, as indented JSON; None of anything else."""
    try:
        frame: Any = msgspec.to_builtins(usage.decode(payload))
    except (msgspec.MsgspecError, ValueError):
        try:
            frame = msgspec.json.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
    return msgspec.json.format(msgspec.json.encode(frame), indent=2).decode("utf-8", "replace")


def dump(payload: bytes) -> str:
    """The first bytes in hexadecimal, with what of them is printable beside it."""
    lines = []
    for at in range(0, min(len(payload), PREVIEW_BYTES), ROW_BYTES):
        part = payload[at : min(at + ROW_BYTES, PREVIEW_BYTES)]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{at:04x}  {part.hex(' '):<{ROW_BYTES * 3}} {text}")
    return "\n".join(lines)
