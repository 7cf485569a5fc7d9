"""Whether metering adds up: hours by model and server, with their verdicts; one of them in full.

Not changelists: the admin cannot hold a table whose primary key is composite.
"""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.http import Http404, HttpRequest
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from meterplane.console import shown
from meterplane.console.site import site
from meterplane.kernel import amounts, clock
from meterplane.metering.models import Reconciliation
from meterplane.metering.reconcile.queries import verdicts_between
from meterplane.metering.reconcile.verdict import EVERY_SERVER

ROWS_SHOWN = 200
LOOKS_BACK = timedelta(days=35)
HEADERS = [
    "Hour (UTC)", "Model", "Server", "Journal", "Events", "Rolled up", "Triton", "Verdict", "Why",
]  # fmt: skip
LABELS = {"pass": "success", "fail": "danger", "open": "warning"}
CHOICES = (("", "All"), ("fail", "Failed"), ("open", "Open"))
EMPTY = {
    "": "Nothing was reconciled yet: an hour is, some minutes after it ended.",
    "fail": "No hour failed: journal, events, roll-ups and Triton agree.",
    "open": "No hour is open: everything that can be compared was.",
}
REASON_CHARS = 90


def verdicts(request: HttpRequest) -> TemplateResponse:
    """The newest hours, by verdict or until one of them."""
    asked = request.GET.get("verdict", "")
    verdict = next((name for name, _ in CHOICES if name == asked), "")
    now = clock.now()
    until = _instant(request.GET.get("until", "")) or now
    rows = verdicts_between(now - LOOKS_BACK, until, verdict, ROWS_SHOWN + 1)
    shown_rows = _whole_hours(rows)
    here = reverse("console:reconciliation")
    older = ""
    if len(rows) > ROWS_SHOWN:
        older = f"{here}?{urlencode({'verdict': verdict, 'until': _text(shown_rows[-1].hour)})}"
    context = {
        **site.each_context(request),
        "title": "Reconciliation",
        "said": "Per hour, model and server: the requests in the journals, those that became"
        " events, those that were summed up, and what Triton counted by itself.",
        "choices": [
            {"label": label, "url": f"{here}?verdict={name}", "current": name == verdict}
            for name, label in CHOICES
        ],
        "table": {"headers": HEADERS, "rows": [_cells(row) for row in shown_rows]},
        "empty": EMPTY[verdict],
        "older_url": older,
    }
    return TemplateResponse(request, "console/table.html", context)


def verdict_in_full(request: HttpRequest) -> TemplateResponse:
    """One row, its whole reason, and the requests it names."""
    hour = _instant(request.GET.get("hour", ""))
    if hour is None:
        raise Http404("no such hour")
    row = Reconciliation.objects.filter(
        hour=hour,
        model=request.GET.get("model", ""),
        server=request.GET.get("server", ""),
    ).first()
    if row is None:
        raise Http404("no such verdict")
    bounds = "not compared"
    if row.triton is not None:
        bounds = (
            f"{row.triton:,} served; metering accounts for"
            f" {row.triton_low:,} to {row.triton_high:,}"
        )
    told: list[tuple[str, Any]] = [
        ("Hour (UTC)", shown.utc(row.hour)),
        ("Model", row.model),
        ("Server", server_in_words(row.server)),
        ("Verdict", label(row.verdict)),
        ("Why", row.reason or "Everything that can be compared agrees."),
        ("In the journals", f"{row.journal:,}"),
        ("Events", f"{row.events:,}"),
        ("In the hour's roll-up", amounts.NOTHING if row.rolled_up is None else row.rolled_up),
        ("Triton", bounds),
        ("In a journal and no event", _ids(row.missing, row.missing_count)),
        ("An event and in no journal", _ids(row.extra, row.extra_count)),
        ("Looked at (UTC)", shown.utc(row.at)),
    ]
    context = {
        **site.each_context(request),
        "title": f"Reconciliation of {shown.utc(row.hour)}",
        "facts": told,
        "choices": [{"label": "All hours", "url": reverse("console:reconciliation")}],
    }
    return TemplateResponse(request, "console/table.html", context)


def reconciliation_urls() -> list[URLPattern]:
    """Mounted by the site."""
    return [
        path("reconciliation/", site.admin_view(verdicts), name="reconciliation"),
        path("reconciliation/hour/", site.admin_view(verdict_in_full), name="reconciliation_hour"),
    ]


def label(verdict: str) -> SafeString:
    """A verdict in its colour."""
    text = Reconciliation.Verdict(verdict).label
    found: SafeString = render_to_string(
        "unfold/helpers/label.html", {"text": text, "type": LABELS[verdict]}
    )
    return found


def server_in_words(server: str) -> str:
    """As `Reconciliation.server` means it."""
    if server == EVERY_SERVER:
        return "all servers"
    return server or "none named"


def _whole_hours(rows: list[Reconciliation]) -> list[Reconciliation]:
    """Without the last hour, where the bound cut it: the next page begins with it."""
    if len(rows) <= ROWS_SHOWN:
        return rows
    whole = [row for row in rows if row.hour > rows[-1].hour]
    return whole or rows


def _cells(row: Reconciliation) -> list[Any]:
    triton = amounts.NOTHING
    if row.triton is not None:
        triton = f"{row.triton:,}"
        if row.triton_low != row.triton_high:
            triton += f" in {row.triton_low:,} to {row.triton_high:,}"
    where = {"hour": _text(row.hour), "model": row.model, "server": row.server}
    link = f"{reverse('console:reconciliation_hour')}?{urlencode(where)}"
    return [
        format_html('<a class="underline" href="{}">{}</a>', link, f"{row.hour:%Y-%m-%d %H:%M}"),
        row.model,
        server_in_words(row.server),
        f"{row.journal:,}",
        f"{row.events:,}",
        amounts.NOTHING if row.rolled_up is None else f"{row.rolled_up:,}",
        triton,
        label(row.verdict),
        row.reason if len(row.reason) <= REASON_CHARS else row.reason[:REASON_CHARS] + "…",
    ]


def _ids(ids: list[UUID], count: int) -> SafeString | str:
    if not count:
        return "none"
    page = reverse("console:usage_events")
    links = format_html_join(
        ", ",
        '<a class="underline" href="{}?request={}">{}</a>',
        ((page, each, each) for each in ids),
    )
    return format_html("{} in all: {}{}", f"{count:,}", links, "" if count <= len(ids) else " …")


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat()


def _instant(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
