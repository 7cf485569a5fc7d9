"""The usage explorer. Its whole state is in the address, so every view of it can be shared."""

from dataclasses import replace
from typing import Any, get_args
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from meterplane.contracts.usage import Priority, ServiceTier, Status, Surface
from meterplane.kernel import amounts, clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import divide_half_away
from meterplane.metering import labels
from meterplane.metering.queries import tag_names
from meterplane.metering.usage_query import TAG, UsageQuery
from meterplane.metering.usage_table import run
from meterplane.metering.usage_written import csv_text
from meterplane.portal import periods, snippets
from meterplane.portal.access import Acting, member_page, render_page
from meterplane.portal.requests_shown import ROWS_PER_PAGE, listed
from meterplane.portal.usage_report import (
    UsageReport,
    as_csv,
    bucketed,
    chart,
    legend,
    names_of,
    totals_of,
    usage_report,
)
from meterplane.portal.usage_state import (
    GROUPS,
    METRICS,
    UsageState,
    choices,
    dimension_label,
    read_state,
)

# Without the browser's own, and whatever an address names: a few that most people find theirs in.
ZONES = (
    "UTC", "America/Los_Angeles", "America/Denver", "America/Chicago", "America/New_York",
    "America/Sao_Paulo", "Europe/London", "Europe/Berlin", "Europe/Helsinki", "Africa/Johannesburg",
    "Asia/Dubai", "Asia/Kolkata", "Asia/Singapore", "Asia/Shanghai", "Asia/Tokyo",
    "Australia/Sydney", "Pacific/Auckland",
)  # fmt: skip
MODELS_OFFERED_MAX = 100
TAGS_OFFERED_MAX = 8
# The longest period that is answered whatever is asked of it.
SHORT: periods.PeriodName = "30d"


@require_GET
@member_page
def usage(request: HttpRequest, acting: Acting) -> HttpResponse:
    tags = tag_names()
    state = read_state(request, tags)
    problem = ""
    try:
        report, drawn = _read(state)
    except CallerError as refused:
        problem = f"{refused.message} This shows 30 days."
        state = replace(state, period=SHORT, bucket="")
        report, drawn = _read(state)
    wanted = request.GET.get("format")
    name = f"usage-{acting.slug}-{state.period}-by-{state.group.replace(':', '-')}"
    if wanted == "csv":
        return csv_response(f"{name}.csv", as_csv(report))
    if wanted == "csv-series":
        series = csv_text(run(bucketed(report)))
        return csv_response(f"{name}-per-{report.period.bucket}.csv", series)
    older_than = _uuid(request.GET.get("before", ""))
    context = _figures(report) | _links(state, tags) | _requests(state, older_than)
    context |= {
        "problem": problem,
        "report": report,
        "rows": [_row(state, row) for row in report.rows],
        "chart": drawn,
        "series": legend(report),
        "metric_label": METRICS[state.metric],
        "live": state.period == "today" and older_than is None,
        "curl": snippets.curl(),
    }
    return render_page(request, acting, "usage", "portal/usage/page.html", context)


def csv_response(filename: str, text: str) -> HttpResponse:
    """A download a spreadsheet opens."""
    response = HttpResponse(text, content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{filename}"'
    response["Cache-Control"] = "no-store"
    return response


def _read(state: UsageState) -> tuple[UsageReport, dict[str, object]]:
    period = periods.period(state.period, clock.now(), state.bucket, state.zone)
    report = usage_report(period, state.group, state.filters)
    return report, chart(report, state.metric)


def _figures(report: UsageReport) -> dict[str, Any]:
    try:
        earlier = totals_of(*periods.before(report.period), report.filters)
        compare = f"{amounts.rounded(earlier.cost_nano, report.currency)} in the period before"
    except CallerError:  # what the period before needs is no longer kept
        compare = ""
    sums = report.totals
    mean_nano = divide_half_away(sums.cost_nano, sums.requests) if sums.requests else 0
    return {
        "error_rate": amounts.percent(sums.errors, sums.requests),
        "mean_cost": amounts.rounded(mean_nano, report.currency),
        "compare": compare,
    }


def _row(state: UsageState, row: Any) -> dict[str, Any]:
    """A row with the way to what it alone is made of; those without a tag have none."""
    url = state.narrowed(state.group, row.split).address() if row.split else ""
    return {"sums": row, "url": url}


def _requests(state: UsageState, older_than: UUID | None) -> dict[str, Any]:
    """One page of the list. One row more is read, to know whether there is another page."""
    rows = listed(ROWS_PER_PAGE + 1, older_than, state.filters)
    shown = rows[:ROWS_PER_PAGE]
    more = len(rows) > ROWS_PER_PAGE
    return {
        "requests": shown,
        "request_decimals": amounts.decimals_needed(
            [row.cost_nano for row in shown], amounts.NANO_DIGITS
        ),
        "older_than": older_than,
        "older_url": state.address(before=str(shown[-1].request_id)) + "#recent" if more else "",
        "newest_url": state.address() + "#recent",
    }


def _links(state: UsageState, tags: list[str]) -> dict[str, Any]:
    drawn_by = {
        "" if place == 0 else name: periods.BUCKET_LABELS[name]
        for place, name in enumerate(periods.BUCKETS[state.period])
    }
    finest_first = [label for label in periods.BUCKET_LABELS.values() if label in drawn_by.values()]
    buckets = sorted(drawn_by.items(), key=lambda each: finest_first.index(each[1]))
    zones = list(dict.fromkeys([*ZONES, state.zone.key]))
    return {
        "periods": choices(replace(state, bucket=""), "period", periods.LABELS),
        "buckets": choices(state, "bucket", dict(buckets)),
        "metrics": choices(state, "metric", METRICS),
        "groups": [
            {"value": name, "label": label, "current": name == state.group}
            for name, label in (GROUPS | {TAG + name: name for name in tags}).items()
        ],
        "zones": [{"name": name, "current": name == state.zone.key} for name in zones],
        "state": state,
        "kept": {
            left_out: [pair for pair in state.pairs() if pair[0] != left_out]
            for left_out in ("group", "tz")
        },
        "unfiltered": [pair for pair in state.pairs() if pair[0] not in state.filters],
        "chips": _chips(state),
        "clear_url": replace(state, filters={}).address(),
        "offered": _offered(state, tags),
        "csv_url": state.address(format="csv"),
        "series_csv_url": state.address(format="csv-series"),
        "live_url": state.address(),
    }


def _chips(state: UsageState) -> list[dict[str, str]]:
    """Each value that is filtered by, with the address without it."""
    return [
        {
            "label": dimension_label(name),
            "value": names.get(value, value),
            "url": state.without(name, value).address(),
        }
        for name, values in state.filters.items()
        for names in (names_of(name),)
        for value in values
    ]


def _offered(state: UsageState, tags: list[str]) -> list[dict[str, Any]]:
    """What the filter form offers: values to choose from, or a text for a tag's."""
    year = periods.period("12m", clock.now())
    models = UsageQuery(year.start, year.end, group_by=("model",), limit=MODELS_OFFERED_MAX)
    values: dict[str, dict[str, str]] = {
        "model": {row.groups[0]: row.groups[0] for row in run(models).rows},
        "project": names_of("project"),
        "key": names_of("key"),
        "status": {name: name for name in get_args(Status)},
        "surface": {name: labels.surface(name) for name in get_args(Surface)},
        "service_tier": {name: labels.tier(name) for name in get_args(ServiceTier)},
        "priority": {name: labels.priority(name) for name in get_args(Priority)},
    }
    selects = [
        {
            "name": name,
            "label": GROUPS[name],
            "options": [
                {"value": value, "label": label, "current": value in state.filters.get(name, ())}
                for value, label in known.items()
            ],
        }
        for name, known in values.items()
    ]
    texts = [
        {
            "name": TAG + name,
            "label": name,
            "options": None,
            "value": next(iter(state.filters.get(TAG + name, ())), ""),
        }
        for name in tags[:TAGS_OFFERED_MAX]
    ]
    return [*selects, *texts]


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
