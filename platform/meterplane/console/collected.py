"""How an organisation pays, and payments of manual invoices that an operator saw arrive.

Guarantees: both are stored by the verbs that the control API calls; a payment that is sent twice
counts once, by its reference, and is taken back once.
"""

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminSingleDateWidget,
    UnfoldAdminTextInputWidget,
)

from billing.invoicing.models import Invoice
from billing.payments.by_hand import left_minor, record_payment, take_back
from billing.payments.models import Method, RecordedPayment
from billing.payments.terms import set_terms, terms
from billing.payments.terms_models import (
    DAYS_UNTIL_DUE_MAX,
    REASON_CHARS_MAX,
    REFERENCE_CHARS_MAX,
)
from meterplane.console import shown, typed
from meterplane.console.read_only import ReadOnly
from meterplane.console.site import site
from meterplane.kernel import amounts, clock
from meterplane.kernel.errors import CallerError
from tenants.models import Organisation
from tenants.scoping import tenant_scope


class TermsForm(forms.Form):
    """Who moves the money."""

    method = forms.ChoiceField(choices=Method.choices, widget=UnfoldAdminSelectWidget)
    days_until_due = forms.IntegerField(
        min_value=0,
        max_value=DAYS_UNTIL_DUE_MAX,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="From the day of issue; of invoices that are charged, where there is no card.",
    )


class PaymentForm(forms.Form):
    """What stands on the bank statement."""

    amount = forms.CharField(max_length=40, widget=UnfoldAdminTextInputWidget)
    paid_on = forms.DateField(widget=UnfoldAdminSingleDateWidget, label="Day of the payment")
    reference = forms.CharField(
        max_length=REFERENCE_CHARS_MAX,
        widget=UnfoldAdminTextInputWidget,
        help_text="The bank's: with the same one, a payment of this invoice counts once.",
    )


class TakeBackForm(forms.Form):
    """Why it was none after all."""

    reason = forms.CharField(max_length=REASON_CHARS_MAX, widget=UnfoldAdminTextInputWidget)


@admin.register(RecordedPayment, site=site)
class RecordedPaymentPage(ReadOnly):
    """Payments by bank transfer, as they were recorded and taken back."""

    list_display = (
        "reference", "tenant", "invoice", "amount", "paid_on", "recorded_by", "recorded_at",
    )  # fmt: skip
    list_select_related = ("tenant", "invoice")
    list_filter = ("tenant",)
    search_fields = ("reference", "invoice__number", "tenant__slug")
    actions_detail = ("take_back",)
    fields = (
        "id", "tenant", "invoice", "amount", "balance", "paid_on", "reference", "takes_back",
        "reason", "recorded_by", "recorded_at",
    )  # fmt: skip
    readonly_fields = ("id", "amount", "balance")

    @shown.action(description="Take back", url_path="take-back", icon="undo")
    def take_back(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return take_payment_back(request, self.row_or_404(request, object_id))

    @shown.column(description="Amount", ordering="amount_minor")
    def amount(self, row: RecordedPayment) -> str:
        return amounts.minor(row.amount_minor, row.invoice.currency)

    @shown.column(description="Beyond what was due")
    def balance(self, row: RecordedPayment) -> str:
        return amounts.minor(row.balance_minor, row.invoice.currency)


def organisation_terms(request: HttpRequest, organisation: Organisation) -> HttpResponse:
    """Shows and stores how one organisation pays."""
    with tenant_scope(organisation.id):
        now = terms()
        initial = {"method": now.method, "days_until_due": now.days_until_due}
        form = TermsForm(request.POST if request.method == "POST" else None, initial=initial)
        if request.method == "POST" and form.is_valid() and _set_terms(request, organisation, form):
            return HttpResponseRedirect(request.path)
    return _page(
        request,
        form,
        f"How {organisation.name} pays",
        "Its next invoice is the first with what is said here.",
        ("Save", reverse("console:tenants_organisation_change", args=[organisation.pk])),
    )


def _set_terms(request: HttpRequest, organisation: Organisation, form: TermsForm) -> bool:
    """False where the verb refused; the form says why."""
    now = terms()
    try:
        set_to = set_terms(**form.cleaned_data, by=f"operator {request.user}")
    except CallerError as refused:
        form.add_error(refused.field if refused.field in form.fields else None, refused.message)
        return False
    said = f"{Method(set_to.method).label}, due in {set_to.days_until_due} days"
    if set_to != now:
        site.get_model_admin(Organisation).note(request, organisation, f"collection: {said}")
    messages.success(request, f"{organisation.name}: {said}, from the next invoice on")
    return True


def invoice_payment(request: HttpRequest, invoice: Invoice) -> HttpResponse:
    """Records a payment of a manual invoice."""
    its_page = reverse("console:invoicing_invoice_change", args=[invoice.pk])
    initial = {"paid_on": clock.now().date()}
    form = PaymentForm(request.POST if request.method == "POST" else None, initial=initial)
    with tenant_scope(invoice.tenant_id):
        left = amounts.minor(left_minor(invoice), invoice.currency)
        if request.method == "POST" and form.is_valid() and _record(request, invoice, form):
            return HttpResponseRedirect(its_page)
    said = f"{left} is left to pay. What is paid beyond that is the customer's balance."
    return _page(request, form, f"Payment of {invoice}", said, ("Record", its_page))


def take_payment_back(request: HttpRequest, payment: RecordedPayment) -> HttpResponse:
    """Asks why, and takes it back."""
    invoice = payment.invoice
    its_page = reverse("console:invoicing_invoice_change", args=[invoice.pk])
    form = TakeBackForm(request.POST if request.method == "POST" else None)
    amount = amounts.minor(payment.amount_minor, invoice.currency)
    if request.method == "POST" and form.is_valid() and _take_back(request, payment, form):
        return HttpResponseRedirect(its_page)
    said = (
        f"{amount} of {invoice} was none after all. An invoice that it covered is owed again, and"
        " a suspension that it ended holds again."
    )
    return _page(request, form, f"Take back {payment}", said, ("Take back", its_page))


def _take_back(request: HttpRequest, payment: RecordedPayment, form: TakeBackForm) -> bool:
    """False where the verb refused; the form says why."""
    invoice, reason = payment.invoice, form.cleaned_data["reason"]
    try:
        with tenant_scope(payment.tenant_id):
            taken = take_back(invoice.id, payment.id, reason=reason, by=f"operator {request.user}")
    except CallerError as refused:
        form.add_error(refused.field if refused.field in form.fields else None, refused.message)
        return False
    if taken.is_new:
        note = f"took back payment {payment}: {reason}"
        site.get_model_admin(Invoice).note(request, invoice, note)
    left = amounts.minor(taken.left_minor, invoice.currency)
    messages.success(
        request, f"Payment {payment} is taken back; {left} of {invoice} is left to pay"
    )
    return True


def _record(request: HttpRequest, invoice: Invoice, form: PaymentForm) -> bool:
    """False where the verb refused; the form says why."""
    said = form.cleaned_data
    try:
        with transaction.atomic():
            recorded = record_payment(
                invoice.id,
                amount_minor=typed.minor(said["amount"], invoice.currency, "amount"),
                paid_on=said["paid_on"],
                reference=said["reference"],
                by=f"operator {request.user}",
            )
    except CallerError as refused:
        form.add_error(refused.field if refused.field in form.fields else None, refused.message)
        return False
    amount = amounts.minor(recorded.amount_minor, invoice.currency)
    left = amounts.minor(recorded.left_minor, invoice.currency)
    if recorded.is_new:
        note = f"recorded a payment of {amount}: {said['reference']}"
        site.get_model_admin(Invoice).note(request, invoice, note)
    messages.success(request, f"{amount} of {invoice} is recorded; {left} is left to pay")
    return True


def _page(
    request: HttpRequest, form: forms.Form, title: str, said: str, ways: tuple[str, str]
) -> HttpResponse:
    submit, back_url = ways
    context = {
        **site.each_context(request),
        "title": title,
        "said": said,
        "form": form,
        "submit_label": submit,
        "back_url": back_url,
        "back_label": "Back",
    }
    return TemplateResponse(request, "console/form.html", context)
