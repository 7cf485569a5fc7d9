"""What is owed: the invoice to come, the invoices so far, and the lines of each."""

import csv
import io
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from billing.invoicing.queries import (
    LineView,
    invoice_with_lines,
    list_invoices,
    upcoming_invoice,
)
from meterplane.kernel import amounts
from meterplane.kernel.decimals import decimal_to_text
from meterplane.kernel.money import minor_to_text, pico_to_text
from meterplane.metering.usage_written import literal
from meterplane.portal.access import Acting, member_page, render_page
from meterplane.portal.views.usage import csv_response
from tenants.queries import organisation

CSV_HEADER = [
    "position", "model", "meter", "quantity", "unit_price", "amount", "currency",
    "period_start", "period_end", "late", "tier", "kind", "description",
]  # fmt: skip


@require_GET
@member_page
def billing(request: HttpRequest, acting: Acting) -> HttpResponse:
    upcoming = upcoming_invoice()
    lines: Sequence[LineView] = upcoming.lines if upcoming else ()
    context = {
        "currency": organisation().currency,
        "upcoming": upcoming,
        "lines": lines,
        "decimals": _decimals(lines),
        "invoices": list_invoices(),
    }
    return render_page(request, acting, "billing", "portal/billing/page.html", context)


@require_GET
@member_page
def invoice(request: HttpRequest, acting: Acting, invoice_id: UUID) -> HttpResponse:
    found = invoice_with_lines(invoice_id)
    if found is None:
        raise Http404
    if request.GET.get("format") == "csv":
        name = found.number or f"draft-{found.period_start:%Y-%m-%d}"
        return csv_response(f"{name}.csv", _as_csv(found.lines, found.currency, found.total_minor))
    context = {
        "invoice": found,
        "currency": found.currency,
        "lines": found.lines,
        "decimals": _decimals(found.lines),
    }
    return render_page(request, acting, "billing", "portal/billing/invoice.html", context)


def _decimals(lines: Sequence[LineView]) -> int:
    prices = [line.unit_price_pico for line in lines if line.unit_price_pico is not None]
    return amounts.decimals_needed(prices, amounts.PICO_DIGITS)


def _as_csv(lines: Sequence[LineView], currency: str, total_minor: int) -> str:
    """The invoice's lines and their total, as they stand on the page."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for position, line in enumerate(lines, start=1):
        unit_price = "" if line.unit_price_pico is None else pico_to_text(line.unit_price_pico)
        cells: list[Any] = [
            position,
            literal(line.model),
            line.meter,
            decimal_to_text(Decimal(line.quantity)),
        ]
        cells += [unit_price, minor_to_text(line.amount_minor, currency)]
        cells += [currency, line.period_start.isoformat(), line.period_end.isoformat()]
        cells += ["yes" if line.is_late else "no", line.service_tier]
        writer.writerow([*cells, line.kind, literal(line.description)])
    writer.writerow(["Total", "", "", "", "", minor_to_text(total_minor, currency), currency])
    return text.getvalue()
