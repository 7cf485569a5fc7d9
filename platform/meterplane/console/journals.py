"""Journals: what each root still holds, and what was taken in of them over the last day."""

from datetime import timedelta

from django.db.models import Count, Sum
from django.db.models.functions import TruncHour
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString

from meterplane.console import shown
from meterplane.console.site import site
from meterplane.kernel import clock
from meterplane.metering.models import JournalSegment
from meterplane.metering.reconcile.queries import Backlog, backlogs

HOURS_SHOWN = 24
ROOT_HEADERS = [
    "Host", "Root", "Everything is taken in up to (UTC)", "Oldest that may not be", "Shipper",
]  # fmt: skip
HOUR_HEADERS = ["Hour (UTC)", "Segments", "Events in them", "New ones"]
BEHIND_S = 60  # a stream holds its journal for as long as it runs; an idle root is a second behind


def journals(request: HttpRequest) -> TemplateResponse:
    """Roots, the one that is furthest behind first; then segments by the hour they came in."""
    taken_in = (
        JournalSegment.objects.filter(ingested_at__gte=clock.now() - timedelta(hours=HOURS_SHOWN))
        .annotate(hour=TruncHour("ingested_at"))
        .values("hour")
        .annotate(segments=Count("segment_id"), found=Sum("events"), new=Sum("inserted"))
        .order_by("-hour")
    )
    context = {
        **site.each_context(request),
        "title": "Journal",
        "said": "A gateway's journal is deleted only once all of it is in the database. A root that"
        " falls behind means a worker, a shipper or a database that is away.",
        "table": {"headers": ROOT_HEADERS, "rows": [_root(each) for each in backlogs()]},
        "empty": "No journal is known: no shipper runs, or none has seen a gateway yet.",
        "second": {
            "headers": HOUR_HEADERS,
            "rows": [
                [
                    shown.utc(each["hour"]), f"{each['segments']:,}",
                    f"{each['found']:,}", f"{each['new']:,}",
                ]
                for each in taken_in
            ],
        },
        "second_title": f"Taken in over the last {HOURS_SHOWN} hours",
        "second_empty": f"No segment was taken in within {HOURS_SHOWN} hours.",
        "choices": [
            {
                "label": "Every segment",
                "url": reverse("console:metering_journalsegment_changelist"),
            }
        ],
        "older_url": "",
    }  # fmt: skip
    return TemplateResponse(request, "console/table.html", context)


def journal_urls() -> list[URLPattern]:
    """Mounted by the site."""
    return [path("journals/", site.admin_view(journals), name="journals")]


def age(seconds: int) -> str:
    """How long ago, in the largest unit that tells something."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:,} {unit}"
    return f"{seconds:,} s"


def _root(root: Backlog) -> list[object]:
    return [
        root.host,
        root.root,
        shown.utc(root.drained_until),
        _label(age(root.oldest_s), "warning" if root.oldest_s > BEHIND_S else "success"),
        _label(f"silent for {age(root.silent_s)}", "danger")
        if root.is_silent
        else f"seen {age(root.silent_s)} ago",
    ]


def _label(text: str, kind: str) -> SafeString:
    found: SafeString = render_to_string("unfold/helpers/label.html", {"text": text, "type": kind})
    return found
