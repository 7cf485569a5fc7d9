"""The console's first page: today at a glance, thirty days as bars, invoices that wait.

Runs in the system's door, which the site opens. Revenue is what requests cost by the prices they
were admitted at, one figure per currency.
"""

import json
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse

from billing.invoicing.models import Invoice
from billing.ledger.audit_night import last_audit
from billing.payments.inbox import ALARM_FAILURES
from billing.payments.models import PaymentFinding, ReconciledDay, WebhookEvent
from meterplane.console import shown
from meterplane.console.disputed import open_disputes
from meterplane.console.entered import audit_alarm
from meterplane.console.journals import age
from meterplane.kernel import amounts, clock
from meterplane.metering.models import CanaryRun, Reconciliation
from meterplane.metering.reconcile.queries import health
from meterplane.metering.usage_query import UsageQuery
from meterplane.metering.usage_table import UsageRow, run
from tenants.models import Organisation

INVOICES_SHOWN = 8
DAYS_SHOWN = 30
JOURNAL_BEHIND_S = 900  # a stream may hold its journal for ten minutes
DAY = timedelta(days=1)
COLOURS = ("#5850ec", "#0d9488", "#e08600", "#d6307b", "#0284c7", "#6d8c0f")


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What `console/dashboard.html` shows."""
    now = clock.now()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    context["figures"] = _figures(midnight)
    context["chart"] = json.dumps(_chart(midnight))
    context["chart_options"] = json.dumps(_chart_options())
    context["invoices"] = {
        "headers": ["Invoice", "Organisation", "Total", "Status", "Collection"],
        "rows": [_invoice(each) for each in _waiting()],
    }
    return context


def environment_badge(request: HttpRequest) -> list[str]:
    """Which installation this is, in the corner of every page."""
    colour = "danger" if settings.ENVIRONMENT == "production" else "info"
    return [settings.ENVIRONMENT.capitalize(), colour]


def unprocessed_webhooks() -> int:
    """How many provider events wait."""
    return WebhookEvent.objects.filter(processed_at__isnull=True).count()


def _figures(midnight: datetime) -> list[dict[str, str]]:
    rows = run(UsageQuery(midnight, midnight + DAY)).totals
    before = run(UsageQuery(midnight - DAY, midnight)).totals
    requests = sum(row.events for row in rows)
    failed = requests - sum(row.events_ok for row in rows)
    waiting = unprocessed_webhooks()
    suspended = Organisation.objects.exclude(standing=Organisation.Standing.ACTIVE).count()
    return [
        {
            "label": "Requests today",
            "value": f"{requests:,}",
            "note": f"{amounts.percent(failed, requests)} not OK",
        },
        {"label": "Revenue today", "value": _money(rows), "note": f"{_money(before)} yesterday"},
        {
            "label": "Organisations",
            "value": f"{Organisation.objects.count():,}",
            "note": f"{suspended} past due or suspended",
        },
        {
            "label": "Unprocessed webhooks",
            "value": f"{waiting:,}",
            "note": "all caught up" if not waiting else "a sweep tries them every 30 s",
            "alarm": "some fail again and again" if _failing_webhooks() else "",
            "url": reverse("console:payments_webhookevent_changelist"),
        },
        _payments(),
        *open_disputes(),
        *_metering(),
        *_ledger(),
    ]


def _failing_webhooks() -> bool:
    return WebhookEvent.objects.filter(
        processed_at__isnull=True, failures__gte=ALARM_FAILURES
    ).exists()


def _payments() -> dict[str, str]:
    """Whether the provider has what we have."""
    found = PaymentFinding.objects.filter(closed_at=None)
    differing, new = found.count(), found.filter(acknowledged_at=None).count()
    last = ReconciledDay.objects.exclude(compared_at=None).order_by("-compared_at").first()
    return {
        "label": "Payments that differ",
        "value": f"{differing:,}",
        "note": f"compared at {shown.utc(last.compared_at)}" if last else "nothing compared yet",
        "alarm": "payments do not add up" if new else "",
        "url": reverse("console:payments_paymentfinding_changelist"),
    }


def _metering() -> list[dict[str, str]]:
    """Whether metering adds up. What is wrong carries an `alarm`, shown in red."""
    now = health()
    last = "no hour yet"
    if now.last_hour is not None:
        last = f"{Reconciliation.Verdict(now.last_verdict).label}, {now.last_hour:%H:%M} UTC"
    wrong = f"{now.failed_hours} of the last day's hours do not add up"
    canary = CanaryRun.objects.exclude(passed=None).order_by("-started_at").first()
    return [
        {
            "label": "Reconciliation",
            "value": last,
            "note": f"{now.open_hours} open hours in the last day",
            "alarm": wrong if now.failed_hours else "",
            "url": reverse("console:reconciliation"),
        },
        {
            "label": "Quarantine, 7 days",
            "value": f"{now.quarantined:,}",
            "note": "usage that ingest set aside",
            "alarm": "served, and billed to nobody" if now.quarantined else "",
            "url": reverse("console:metering_usagequarantine_changelist"),
        },
        {
            "label": "Oldest in a journal",
            "value": age(now.oldest_backlog_s),
            "note": "since all before it was taken in",
            "alarm": "journals are behind" if now.oldest_backlog_s > JOURNAL_BEHIND_S else "",
            "url": reverse("console:journals"),
        },
        {
            "label": "Canary",
            "value": _canary(canary),
            "note": f"run at {shown.utc(canary.started_at)}" if canary else "it is off, or new",
            "alarm": "the chain is broken" if canary and not canary.passed else "",
            "url": reverse("console:metering_canaryrun_changelist"),
        },
    ]


def _ledger() -> list[dict[str, str]]:
    """Only where it is not proved: what was found, or that no audit came to its end."""
    run = last_audit()
    alarm = audit_alarm(run)
    if run is None or not alarm:
        return []
    return [
        {
            "label": "Ledger audit",
            "value": f"{run.wrong:,} wrong" if run.wrong else f"{run.on:%Y-%m-%d}",
            "note": "",
            "alarm": alarm,
            "url": reverse("console:ledger_auditrun_changelist"),
        }
    ]


def _canary(run: CanaryRun | None) -> str:
    if run is None:
        return "no run yet"
    if not run.passed:
        return "Failed"
    return f"Passed, {run.visible_after_ms:,} ms" if run.visible_after_ms else "Passed"


def _money(rows: tuple[UsageRow, ...]) -> str:
    found = [amounts.rounded(row.cost_nano, row.currency) for row in rows]
    return " + ".join(found) or amounts.rounded(0, "USD")


def _chart(midnight: datetime) -> dict[str, Any]:
    days = [midnight - n * DAY for n in reversed(range(DAYS_SHOWN))]
    counts: dict[str, dict[datetime | None, int]] = {}
    by_model = UsageQuery(days[0], midnight + DAY, bucket="day", group_by=("model",))
    for row in run(by_model).rows:
        by_day = counts.setdefault(row.groups[0], {})
        by_day[row.at] = by_day.get(row.at, 0) + row.events
    busiest = sorted(counts, key=lambda model: -sum(counts[model].values()))[: len(COLOURS)]
    return {
        "labels": [f"{day.day} {day:%b}" for day in days],
        "datasets": [
            {
                "label": model,
                "data": [counts[model].get(at, 0) for at in days],
                "backgroundColor": colour,
                "borderRadius": 3,
                "maxBarThickness": 28,
            }
            for model, colour in zip(busiest, COLOURS, strict=False)
        ],
    }


def _chart_options() -> dict[str, Any]:
    """Unfold's own defaults draw 4 px bars and hide every series but the first."""
    return {
        "animation": False,
        "responsive": True,
        "maintainAspectRatio": False,
        "barPercentage": 0.9,
        "plugins": {
            "legend": {"display": True, "align": "end", "labels": {"boxWidth": 10}},
            "tooltip": {"mode": "index", "intersect": False},
        },
        "scales": {
            "x": {"stacked": True, "grid": {"display": False}, "ticks": {"maxRotation": 0}},
            "y": {"stacked": True, "beginAtZero": True, "ticks": {"maxTicksLimit": 5}},
        },
    }


def _waiting() -> list[Invoice]:
    """Parked ones first, then what is not collected, then the newest."""
    invoices = Invoice.objects.select_related("tenant")
    parked = list(invoices.filter(collection_state="parked")[:INVOICES_SHOWN])
    rest = invoices.exclude(collection_state="parked").order_by("-created_at")
    return (parked + list(rest[:INVOICES_SHOWN]))[:INVOICES_SHOWN]


def _invoice(invoice: Invoice) -> list[str]:
    return [
        f"{invoice} · {shown.utc(invoice.created_at)}",
        invoice.tenant.name,
        amounts.minor(invoice.total_minor, invoice.currency),
        Invoice.Status(invoice.status).label,
        Invoice.Collection(invoice.collection_state).label,
    ]
