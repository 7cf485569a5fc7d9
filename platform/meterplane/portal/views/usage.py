"""The usage explorer. Its whole state is in the address, so every view of it can be shared."""

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_GET

from meterplane.kernel import amounts, clock
from meterplane.kernel.money import divide_half_away
from meterplane.metering.queries import totals
from meterplane.portal import periods, snippets
from meterplane.portal.access import Acting, member_page, render_page
from meterplane.portal.requests_shown import ROWS_PER_PAGE, listed
from meterplane.portal.usage_report import (
    GROUPS,
    METRICS,
    Group,
    Metric,
    UsageReport,
    as_csv,
    chart,
    legend,
    totals_of,
    usage_report,
)

DEFAULTS = {"period": "7d", "group": "model", "metric": "spend"}


@require_GET
@member_page
def usage(request: HttpRequest, acting: Acting) -> HttpResponse:
    state = {
        "period": _one_of(request, "period", periods.LABELS),
        "group": _one_of(request, "group", GROUPS),
        "metric": _one_of(request, "metric", METRICS),
    }
    group: Group = next(name for name in GROUPS if name == state["group"])
    metric: Metric = next(name for name in METRICS if name == state["metric"])
    report = usage_report(periods.period(state["period"], clock.now()), group)
    if request.GET.get("format") == "csv":
        return csv_response(f"usage-{acting.slug}-{state['period']}-by-{group}.csv", as_csv(report))
    older_than = _uuid(request.GET.get("before", ""))
    context = _figures(report) | _links(state) | _requests(state, older_than)
    context |= {
        "report": report,
        "chart": chart(report, metric),
        "series": legend(report),
        "metric_label": METRICS[metric],
        "live": state["period"] == "today" and older_than is None,
        "curl": snippets.curl(),
    }
    return render_page(request, acting, "usage", "portal/usage/page.html", context)


def csv_response(filename: str, text: str) -> HttpResponse:
    """A download a spreadsheet opens."""
    response = HttpResponse(text, content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{filename}"'
    response["Cache-Control"] = "no-store"
    return response


def _figures(report: UsageReport) -> dict[str, Any]:
    earlier = totals_of(totals(*periods.before(report.period)))
    sums = report.totals
    mean_nano = divide_half_away(sums.cost_nano, sums.requests) if sums.requests else 0
    return {
        "error_rate": amounts.percent(sums.errors, sums.requests),
        "mean_cost": amounts.rounded(mean_nano, report.currency),
        "compare": f"{amounts.rounded(earlier.cost_nano, report.currency)} in the period before",
    }


def _requests(state: dict[str, str], older_than: UUID | None) -> dict[str, Any]:
    """One page of the list. One row more is read, to know whether there is another page."""
    rows = listed(ROWS_PER_PAGE + 1, older_than)
    shown = rows[:ROWS_PER_PAGE]
    more = len(rows) > ROWS_PER_PAGE
    return {
        "requests": shown,
        "request_decimals": amounts.decimals_needed(
            [row.cost_nano for row in shown], amounts.NANO_DIGITS
        ),
        "older_than": older_than,
        "older_url": address(state, before=str(shown[-1].request_id)) + "#recent" if more else "",
        "newest_url": address(state) + "#recent",
    }


def _links(state: dict[str, str]) -> dict[str, Any]:
    return {
        "periods": _choices(state, "period", periods.LABELS),
        "groups": _choices(state, "group", GROUPS),
        "metrics": _choices(state, "metric", METRICS),
        "csv_url": address(state, format="csv"),
        "live_url": address(state),
    }


def _choices(state: dict[str, str], name: str, labels: Any) -> list[dict[str, Any]]:
    return [
        {"label": label, "url": address(state | {name: value}), "current": state[name] == value}
        for value, label in labels.items()
    ]


def address(state: dict[str, str], **more: str) -> str:
    """The address of a view of this page; what is usual is left out of it."""
    query = {name: value for name, value in state.items() if value != DEFAULTS[name]} | more
    return reverse("portal:usage") + (f"?{urlencode(query)}" if query else "")


def _one_of(request: HttpRequest, name: str, known: Any) -> str:
    wanted = request.GET.get(name, "")
    return wanted if wanted in known else DEFAULTS[name]


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
