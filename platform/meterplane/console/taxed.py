"""Taxes: the operator's rates, and which of them an organisation's invoices carry, if not Stripe's.

Guarantees: forms are stored by the verbs that the control API calls; what those would refuse is
refused beside its field. A rate is made and retired, never changed: invoices were made with it.
What is said for an organisation holds from its next invoice on.
"""

from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminRadioSelectWidget,
    UnfoldAdminTextInputWidget,
)

from billing.invoicing import taxation
from billing.invoicing.models import AssignedTax, TaxedBy, TaxExemption, TaxMode, TaxRate
from billing.invoicing.provider_tax import is_computed_by_stripe
from billing.invoicing.tax_choice import choose_taxes
from meterplane.console import shown
from meterplane.console.read_only import ReadOnly
from meterplane.console.site import site
from meterplane.kernel.errors import CallerError
from tenants.models import Organisation
from tenants.scoping import tenant_scope

STATE_LABELS = {"In use": "success", "Retired": "info"}
RATE_HELP = {
    "name": "As it stands on invoices: VAT, GST.",
    "mode": "Whether the tax comes on top of prices, or is in them already.",
    "country": "Two letters, as DE. Empty: none is named.",
    "label": "For yourself; no invoice shows it.",
}
FIELD_OF = {"kind": "exemption"}
COMPUTED = {TaxedBy.RATES: "The rates chosen below", TaxedBy.STRIPE: "Stripe Tax"}


class RateForm(forms.ModelForm):  # type: ignore[type-arg]
    """A rate; its percentage as people write it."""

    percentage = forms.CharField(
        max_length=12, widget=UnfoldAdminTextInputWidget, help_text="0 to 100, as 19 or 7.7."
    )

    class Meta:
        model = TaxRate
        fields = ("name", "mode", "country", "label")
        help_texts = RATE_HELP

    def clean_country(self) -> str:
        return str(self.cleaned_data["country"]).strip().upper()

    def clean(self) -> dict[str, Any]:
        """By the check of the verb. A form that was sent twice makes one rate."""
        said: dict[str, Any] = super().clean() or self.cleaned_data
        if self.errors:
            return said
        named = {name: said[name] for name in ("name", "percentage", "mode", "country")}
        try:
            exact = taxation.check_rate(**named)
        except CallerError as refused:
            self.add_error(refused.field, refused.message)
            return said
        there = named | {"name": said["name"].strip(), "percentage": exact}
        if TaxRate.objects.filter(**there, retired_at__isnull=True).exists():
            raise forms.ValidationError("This rate is in use already: assign that one.")
        return said

    def validate_constraints(self) -> None:
        """Nothing: `clean` has said it in words."""


@admin.register(TaxRate, site=site)
class TaxRatePage(ReadOnly):
    """Rates, those in use and those that were."""

    form = RateForm
    list_display = (
        "name", "shown_percentage", "mode", "country", "shown_state", "organisations", "label",
        "created_at",
    )  # fmt: skip
    list_filter = ("mode", ("retired_at", admin.EmptyFieldListFilter))
    search_fields = ("name", "country", "label")
    actions = ("retire",)
    list_before_template = "console/tax_rates_hint.html"

    def get_queryset(self, request: HttpRequest) -> "QuerySet[TaxRate]":
        rows: QuerySet[TaxRate] = super().get_queryset(request)
        assigned = AssignedTax.objects.filter(rate_id=OuterRef("pk")).order_by().values("rate_id")
        return rows.annotate(assigned=Subquery(assigned.annotate(n=Count("id")).values("n")))

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj is None:
            return ("name", "percentage", "mode", "country", "label")
        return (
            "id", "name", "shown_percentage", "mode", "country", "label", "organisations",
            "created_at", "retired_at",
        )  # fmt: skip

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if obj is None else self.get_fields(request, obj)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request, obj)

    def save_model(self, request: HttpRequest, row: TaxRate, form: RateForm, change: bool) -> None:
        """Make it by the verb."""
        said = form.cleaned_data
        row.pk = taxation.create_rate(
            **{name: said[name] for name in ("name", "percentage", "mode", "country", "label")}
        ).pk

    @admin.action(
        description="Retire: no invoice is made with it from here on; it cannot come back"
    )
    def retire(self, request: HttpRequest, rows: "QuerySet[TaxRate]") -> None:
        for row in rows:
            if row.retired_at is not None:
                messages.info(request, f"{row} was retired already")
                continue
            taxation.retire_rate(row.id)
            self.note(request, row, "retired")
            messages.success(request, f"{row} is retired")

    @shown.column(description="Percentage", ordering="percentage")
    def shown_percentage(self, row: TaxRate) -> str:
        return f"{row.percentage.normalize():f} %"

    @shown.column(description="State", label=STATE_LABELS, ordering="retired_at")
    def shown_state(self, row: TaxRate) -> str:
        return "In use" if row.retired_at is None else "Retired"

    @shown.column(description="Organisations", ordering="assigned")
    def organisations(self, row: Any) -> int:
        return row.assigned or 0


class TaxesForm(forms.Form):
    """What an organisation's invoices are taxed at, or why they are not."""

    computed_by = forms.ChoiceField(
        required=False,
        choices=list(COMPUTED.items()),
        widget=UnfoldAdminRadioSelectWidget,
        help_text="Stripe computes taxes by the country in the billing details, when an invoice is"
        " sent. It goes without rates.",
    )
    rates = forms.MultipleChoiceField(
        required=False,
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text=f"At most {taxation.RATES_PER_ORGANISATION_MAX}; none: invoices carry no tax.",
    )
    exemption = forms.ChoiceField(
        required=False,
        choices=[("", "Not exempt"), *TaxExemption.Kind.choices],
        widget=UnfoldAdminRadioSelectWidget,
        help_text="Stands above all rates for as long as it is set.",
    )
    reason = forms.CharField(
        required=False,
        max_length=200,
        widget=UnfoldAdminTextInputWidget,
        help_text="Why it is exempt, as a certificate's or the customer's tax number. It is on"
        " every invoice.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        live = TaxRate.objects.filter(retired_at__isnull=True)
        self.fields["rates"].choices = [  # type: ignore[attr-defined]
            (str(rate.id), _in_words(rate)) for rate in live
        ]

    def clean(self) -> dict[str, Any]:
        said: dict[str, Any] = super().clean() or self.cleaned_data
        if said.get("reason") and not said.get("exemption"):
            self.add_error("exemption", "Choose which exemption the reason is for, or empty it.")
        return said


def organisation_taxes(request: HttpRequest, organisation: Organisation) -> HttpResponse:
    """Shows and stores how one organisation is taxed."""
    with tenant_scope(organisation.id):
        form = TaxesForm(request.POST if request.method == "POST" else None, initial=_initial())
        if request.method == "POST" and form.is_valid() and _store(request, organisation, form):
            messages.success(
                request, f"{organisation.name}: {taxes_in_words()}, from the next invoice on"
            )
            return HttpResponseRedirect(request.path)
    context = {
        **site.each_context(request),
        "title": f"Taxes of {organisation.name}",
        "said": "Its next invoice is the first with what is said here; those that are made keep"
        " theirs.",
        "form": form,
        "empty": "" if form.fields["rates"].choices else "There is no tax rate in use yet.",  # type: ignore[attr-defined]
        "empty_url": reverse("console:invoicing_taxrate_add"),
        "empty_label": "Make the first one",
        "submit_label": "Save",
        "back_url": reverse("console:tenants_organisation_change", args=[organisation.pk]),
        "back_label": "Back to the organisation",
    }
    return TemplateResponse(request, "console/form.html", context)


def _store(request: HttpRequest, organisation: Organisation, form: TaxesForm) -> bool:
    """False where the verbs refused; the form says why."""
    said, before = form.cleaned_data, taxes_in_words()
    try:
        with transaction.atomic():
            choose_taxes(
                [UUID(rate_id) for rate_id in said["rates"]],
                said["computed_by"] or TaxedBy.RATES,
            )
            if said["exemption"]:
                taxation.exempt(said["exemption"], said["reason"])
            else:
                taxation.end_exemption()
    except CallerError as refused:
        form.add_error(FIELD_OF.get(refused.field or "", refused.field), refused.message)
        return False
    if taxes_in_words() != before:
        site.get_model_admin(Organisation).note(request, organisation, f"taxes: {taxes_in_words()}")
    return True


def taxes_in_words() -> str:
    """How the open door's organisation is taxed now, on one line."""
    exempt = taxation.exemption()
    if exempt is not None:
        return taxation.tax_note(exempt)
    if is_computed_by_stripe():
        return "computed by Stripe"
    rates = AssignedTax.objects.filter(rate__retired_at__isnull=True).select_related("rate")
    named = [_in_words(each.rate) for each in rates.order_by("rate__name", "rate__percentage")]
    return ", ".join(named) or "no tax"


def _initial() -> dict[str, Any]:
    exempt = taxation.exemption()
    return {
        "computed_by": TaxedBy.STRIPE if is_computed_by_stripe() else TaxedBy.RATES,
        "rates": [
            str(rate_id) for rate_id in AssignedTax.objects.values_list("rate_id", flat=True)
        ],
        "exemption": exempt.kind if exempt else "",
        "reason": exempt.reason if exempt else "",
    }


def _in_words(rate: TaxRate) -> str:
    country = f" ({rate.country})" if rate.country else ""
    return f"{rate}{country}, {TaxMode(rate.mode).label.lower()}"
