"""What is owed: the invoice to come, the invoices so far, and all that each of them says."""

from collections.abc import Sequence
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from billing.credits import queries as credit
from billing.invoicing.documents import invoice_document
from billing.invoicing.invoice_csv import lines_csv
from billing.invoicing.parties import details
from billing.invoicing.queries import LineView, list_invoices, upcoming_invoice
from billing.payments import money_in
from billing.payments.disputed import disputes_told
from billing.payments.owed import owed, still_due_minor, to_pay, transfer
from meterplane.kernel import amounts
from meterplane.policy.credit_shown import shown_credit
from meterplane.portal.access import Acting, member_page, render_page
from meterplane.portal.provider_pages import leads_to_provider
from meterplane.portal.views.usage import csv_response
from tenants.queries import organisation

CREDIT_HISTORY_MAX = 20
TOP_UPS_MAX = 10


@require_GET
@leads_to_provider
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
        "owed": owed(),
        "transfer": transfer(),
        "details": details(),
        "credit": credit.balance(),
        "held": shown_credit(),
        "credit_history": credit.history(CREDIT_HISTORY_MAX),
        "card": money_in.card(),
        "top_ups": money_in.list_top_ups(TOP_UPS_MAX),
        "reload": money_in.auto_reload(),
        "disputes": disputes_told(),
    }
    return render_page(request, acting, "billing", "portal/billing/page.html", context)


@require_GET
@member_page
def invoice(request: HttpRequest, acting: Acting, invoice_id: UUID) -> HttpResponse:
    found = invoice_document(invoice_id)
    if found is None:
        raise Http404
    if request.GET.get("format") == "csv":
        name = found.invoice.number or f"draft-{found.invoice.period_start:%Y-%m-%d}"
        return csv_response(f"{name}.csv", lines_csv(invoice_id) or "")
    context = {
        "document": found,
        "invoice": found.invoice,
        "currency": found.invoice.currency,
        "lines": found.lines,
        "decimals": _decimals(found.lines),
        "disputes": disputes_told(invoice_id),
        "left_minor": still_due_minor(invoice_id),
        "to_pay": to_pay(invoice_id),
    }
    return render_page(request, acting, "billing", "portal/billing/invoice.html", context)


def _decimals(lines: Sequence[LineView]) -> int:
    prices = [line.unit_price_pico for line in lines if line.unit_price_pico is not None]
    return amounts.decimals_needed(prices, amounts.PICO_DIGITS)
