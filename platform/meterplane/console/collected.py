"""How an organisation pays, and payments of manual invoices that an operator saw arrive.

Guarantees: both are stored by the verbs that the control API calls; a payment that is sent twice
counts once, by its reference.
"""

from django import forms
from django.contrib import messages
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
from billing.payments.by_hand import left_minor, record_payment
from billing.payments.models import Method
from billing.payments.terms import set_terms, terms
from billing.payments.terms_models import DAYS_UNTIL_DUE_MAX, REFERENCE_CHARS_MAX
from meterplane.console import typed
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


def organisation_terms(request: HttpRequest, organisation: Organisation) -> HttpResponse:
    """Shows and stores how one organisation pays."""
    with tenant_scope(organisation.id):
        now = terms()
        initial = {"method": now.method, "days_until_due": now.days_until_due}
        form = TermsForm(request.POST if request.method == "POST" else None, initial=initial)
        if request.method == "POST" and form.is_valid():
            set_to = set_terms(**form.cleaned_data, by=f"operator {request.user}")
            said = f"{Method(set_to.method).label}, due in {set_to.days_until_due} days"
            if set_to != now:
                note = f"collection: {said}"
                site.get_model_admin(Organisation).note(request, organisation, note)
            messages.success(request, f"{organisation.name}: {said}, from the next invoice on")
            return HttpResponseRedirect(request.path)
    return _page(
        request,
        form,
        f"How {organisation.name} pays",
        "Its next invoice is the first with what is said here.",
        ("Save", reverse("console:tenants_organisation_change", args=[organisation.pk])),
    )


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
