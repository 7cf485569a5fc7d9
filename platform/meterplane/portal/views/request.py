"""One request: what happened when, what it cost and why, and every fact metered about it."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from billing.pricing.book import Meter
from billing.pricing.queries import ModelPrices, prices_of
from billing.pricing.receipts import receipt_of
from meterplane.kernel import amounts
from meterplane.metering import labels
from meterplane.metering.queries import RequestRow, request_by_id
from meterplane.portal.access import Acting, member_page, render_page
from meterplane.portal.usage_report import key_labels
from tenants.queries import list_projects


@require_GET
@member_page
def request_detail(request: HttpRequest, acting: Acting, request_id: UUID) -> HttpResponse:
    event = request_by_id(request_id)
    if event is None:
        raise Http404
    lines = _cost_lines(event)
    wait_permille = min(1000, event.first_byte_ms * 1000 // event.total_ms) if event.total_ms else 0
    context = {
        "event": event,
        "tokens": event.tokens_in + event.tokens_out,
        "wait_permille": wait_permille,
        "work_permille": 1000 - wait_permille,
        "timeline": _timeline(event),
        "cost_lines": lines,
        "price_decimals": _decimals(lines, "unit_price_pico"),
        "product_decimals": _decimals(lines, "product_pico"),
        "facts": _facts(event),
    }
    return render_page(request, acting, "usage", "portal/request.html", context)


@require_GET
@member_page
def receipt(request: HttpRequest, acting: Acting, request_id: UUID) -> HttpResponse:
    """The request's signed receipt, to keep."""
    content = receipt_of(request_id)
    if content is None:
        raise Http404
    response = HttpResponse(content, content_type="application/json")
    response["Content-Disposition"] = f'attachment; filename="receipt-{request_id}.json"'
    return response


def _timeline(event: RequestRow) -> list[dict[str, Any]]:
    steps: list[tuple[str, int, str]] = [("Admitted and reserved", 0, "")]
    if event.first_byte_ms:
        steps.append(("First byte left", event.first_byte_ms, "wait"))
    steps.append(("Settled", event.total_ms, "work"))
    return [
        {
            "label": label,
            "after_ms": after_ms,
            "swatch": swatch,
            "at": event.event_at + timedelta(milliseconds=after_ms),
        }
        for label, after_ms, swatch in steps
    ]


def _cost_lines(event: RequestRow) -> list[dict[str, Any]]:
    """Quantity times the unit price pinned at admission; empty when that version is unknown."""
    book = prices_of(event.price_version_id)
    prices: ModelPrices | None = book.prices.get(event.model) if book else None
    if prices is None:
        return []
    meters: list[tuple[Meter, int]] = [
        ("input_tokens", event.tokens_in),
        ("output_tokens", event.tokens_out),
        ("requests", event.requests),
    ]
    return [
        {
            "meter": meter,
            "quantity": quantity,
            "unit_price_pico": unit_price_pico,
            "product_pico": quantity * unit_price_pico,
        }
        for meter, quantity in meters
        if (unit_price_pico := prices.of(meter, event.service_tier))
    ]


def _decimals(lines: list[dict[str, Any]], name: str) -> int:
    return amounts.decimals_needed([line[name] for line in lines], amounts.PICO_DIGITS)


def _facts(event: RequestRow) -> list[dict[str, Any]]:
    projects = {project.id: project.name for project in list_projects()}
    facts = [
        ("Model", event.model, False),
        *_served_otherwise(event),
        ("Surface", labels.surface(event.surface), False),
        ("Tier", labels.tier(event.service_tier), False),
        ("Streamed", "yes" if event.stream else "no", False),
        ("Key", key_labels().get(str(event.key_id), str(event.key_id)), False),
        ("Project", projects.get(event.project_id, str(event.project_id)), False),
        ("Counts come from", labels.provenance(event.provenance), False),
        ("Held at the gateway", amounts.microseconds(event.queue_us), False),
        ("First byte after", amounts.milliseconds(event.first_byte_ms), False),
        ("At the server", amounts.microseconds(event.compute_us), False),
        ("Rows", f"{event.rows:,}", False),
        ("Bytes in", f"{event.bytes_in:,}", False),
        ("Bytes out", f"{event.bytes_out:,}", False),
        ("Tensor bytes in", f"{event.tensor_bytes_in:,}", False),
        ("Tensor bytes out", f"{event.tensor_bytes_out:,}", False),
        ("Trace", event.trace_id or amounts.NOTHING, True),
        ("Price version", event.price_version_id, True),
    ]
    return [{"label": label, "value": value, "mono": mono} for label, value, mono in facts]


def _served_otherwise(event: RequestRow) -> list[tuple[str, str, bool]]:
    """What is worth a line only when it happened: a fallback, a split, a retry."""
    facts = []
    if event.requested_model and event.requested_model != event.model:
        facts.append(("Asked for", f"{event.requested_model}, answered by its fallback", False))
    if event.deployment:
        facts.append(("Deployment", event.deployment, False))
    if event.retries:
        facts.append(("Servers asked before", str(event.retries), False))
    return facts
