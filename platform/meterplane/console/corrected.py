"""What an operator does about an invoice that was sent: void it, write it off, pay money back.

Guarantees: each is asked for by the verb that the control API calls, with a reason, and remembered
once in the invoice's history; the page that sends it twice asks once. The next sweep does it at the
payment provider.
"""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.widgets import UnfoldAdminTextInputWidget

from billing.invoicing.models import Invoice
from billing.payments import refunds, withdraw
from billing.payments.models import Refund
from meterplane.console import shown, typed
from meterplane.console.read_only import ReadOnly
from meterplane.console.site import site
from meterplane.kernel import amounts
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from tenants.scoping import tenant_scope

REFUND_LABELS = {
    "asked": "info",
    "pending": "warning",
    "succeeded": "success",
    "failed": "danger",
    "refused": "danger",
}
_WORDS = {withdraw.VOID: "Void", withdraw.UNCOLLECTIBLE: "Write off"}
_SAID = {
    withdraw.VOID: "It is as if it had never been: credit that it drew comes back, and nobody is"
    " charged for it. The next sweep voids it at the provider.",
    withdraw.UNCOLLECTIBLE: "Nobody expects the money any more; it can still be paid, or voided."
    " The next sweep marks it uncollectible at the provider.",
}


class ReasonForm(forms.Form):
    """Why."""

    reason = forms.CharField(
        max_length=withdraw.REASON_CHARS_MAX, widget=UnfoldAdminTextInputWidget
    )


class RefundForm(ReasonForm):
    """How much, and why. It carries the name of its refund, so that sent twice it makes one."""

    amount = forms.CharField(
        required=False,
        max_length=40,
        widget=UnfoldAdminTextInputWidget,
        help_text="Empty: all that is left of the payment.",
    )
    named = forms.CharField(widget=forms.HiddenInput, initial=lambda: f"console:{uuid7()}")


def withdraw_invoice(request: HttpRequest, invoice: Invoice, status: str) -> HttpResponse:
    """Asks why, and asks for it."""
    form = ReasonForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        reason = form.cleaned_data["reason"]
        try:
            with tenant_scope(invoice.tenant_id):
                withdraw.ask(invoice.id, status, reason)
        except CallerError as refused:
            form.add_error("reason" if refused.field else None, refused.message)
        else:
            asked = f"{_WORDS[status].lower()}: {reason}"
            site.get_model_admin(Invoice).note(request, invoice, asked)
            messages.success(request, f"{invoice.number} is asked to {_WORDS[status].lower()}.")
            return HttpResponseRedirect(_page(invoice))
    return _form(request, invoice, form, f"{_WORDS[status]} {invoice.number}", _SAID[status])


def refund_invoice(request: HttpRequest, invoice: Invoice) -> HttpResponse:
    """Asks how much and why, and asks for it."""
    form = RefundForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            refund = _refund(invoice, form.cleaned_data)
        except CallerError as refused:
            form.add_error(refused.field if refused.field in form.fields else None, refused.message)
        else:
            amount = amounts.minor(refund.amount_minor, refund.currency)
            asked = f"refund of {amount}: {refund.reason}"
            site.get_model_admin(Invoice).note(request, invoice, asked)
            messages.success(request, f"{amount} of {invoice.number} will be paid back.")
            return HttpResponseRedirect(_page(invoice))
    said = (
        "The money goes back to the card that paid. It corrects no invoice and no tax: a credit"
        " note does, and its refund is made with it."
    )
    return _form(request, invoice, form, f"Refund {invoice.number}", said)


@admin.register(Refund, site=site)
class RefundPage(ReadOnly):
    """Money that went back, whoever gave it back."""

    list_display = ("amount", "tenant", "invoice", "origin", "shown_state", "reason", "created_at")
    list_select_related = ("tenant", "invoice")
    list_filter = ("state", "origin", "tenant")
    search_fields = ("provider_refund_id", "invoice__number", "tenant__slug", "reason")
    fields = (
        "id", "tenant", "invoice", "note", "provider", "provider_refund_id", "payment_intent_id",
        "origin", "state", "amount", "owed", "balance", "goodwill", "reason", "failure",
        "created_at", "made_at", "failed_at",
    )  # fmt: skip
    readonly_fields = ("id", "amount", "owed", "balance", "goodwill")

    @shown.column(description="State", label=REFUND_LABELS, ordering="state")
    def shown_state(self, row: Refund) -> tuple[str, str]:
        return row.state, Refund.State(row.state).label

    @shown.column(description="Amount", ordering="amount_minor")
    def amount(self, row: Refund) -> str:
        return amounts.minor(row.amount_minor, row.currency)

    @shown.column(description="Promised by credit notes")
    def owed(self, row: Refund) -> str:
        return amounts.minor(row.owed_minor, row.currency)

    @shown.column(description="Paid too much")
    def balance(self, row: Refund) -> str:
        return amounts.minor(row.balance_minor, row.currency)

    @shown.column(description="That nothing stands for")
    def goodwill(self, row: Refund) -> str:
        return amounts.minor(row.goodwill_minor, row.currency)


def _refund(invoice: Invoice, said: dict[str, Any]) -> Refund:
    amount = said["amount"].strip()
    with tenant_scope(invoice.tenant_id):
        return refunds.ask(
            invoice.id,
            amount_minor=typed.minor(amount, invoice.currency, "amount") if amount else None,
            reason=said["reason"],
            idempotency_key=said["named"],
        )


def _page(invoice: Invoice) -> str:
    return reverse("console:invoicing_invoice_change", args=[invoice.pk])


def _form(
    request: HttpRequest, invoice: Invoice, form: forms.Form, title: str, said: str
) -> HttpResponse:
    context = {
        **site.each_context(request),
        "title": title,
        "said": said,
        "form": form,
        "submit_label": title,
        "back_url": _page(invoice),
        "back_label": "Back to the invoice",
    }
    return TemplateResponse(request, "console/form.html", context)
