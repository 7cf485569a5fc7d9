"""The first page: what today costs, and the way to a first call."""

from datetime import timedelta

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from billing.payments.owed import owed
from meterplane.kernel import amounts, clock
from meterplane.portal import periods
from meterplane.portal.access import Acting, member_page, render_page
from meterplane.portal.alerts_listed import listed_alerts
from meterplane.portal.requests_shown import listed
from meterplane.portal.snippets import quickstart
from meterplane.portal.usage_report import chart, legend, totals_of, usage_report
from tenants.queries import list_keys, monthly_budget_nano, organisation

REQUESTS_SHOWN = 8
ALERTS_SHOWN = 5


@require_GET
@member_page
def overview(request: HttpRequest, acting: Acting) -> HttpResponse:
    now = clock.now()
    own = organisation()
    today, month = periods.period("today", now), periods.period("month", now)
    figures = totals_of(today.start, today.end)
    month_sums = totals_of(month.start, month.end)
    report = usage_report(periods.period("30d", now), "model")
    requests = listed(REQUESTS_SHOWN)
    budget_nano = monthly_budget_nano(own)
    context = {
        "currency": own.currency,
        "standing": own.standing,
        "owed": owed(),
        "standing_reason": own.standing_reason,
        "today": figures,
        "yesterday": totals_of(today.start - timedelta(days=1), today.start),
        "month": month_sums,
        "budget_nano": budget_nano,
        "budget_permille": min(1000, month_sums.cost_nano * 1000 // budget_nano)
        if budget_nano
        else 0,
        "error_rate": amounts.percent(figures.errors, figures.requests),
        "series": legend(report),
        "chart": chart(report, "spend"),
        "alerts": listed_alerts(ALERTS_SHOWN, own.currency),
        "requests": requests,
        "decimals": amounts.decimals_needed([r.cost_nano for r in requests], amounts.NANO_DIGITS),
        "has_key": list_keys().filter(status="active").exists(),
        "has_request": bool(requests),
        "snippets": quickstart(),
    }
    return render_page(request, acting, "overview", "portal/overview.html", context)
