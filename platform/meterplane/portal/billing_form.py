"""Billing details as a form. What each field may hold is checked by the verb."""

from typing import Any

from django import forms

from billing.invoicing.models import BillingDetails
from billing.invoicing.parties import NAME_CHARS_MAX, PURCHASE_ORDER_CHARS_MAX, TAX_ID_LABELS
from meterplane.kernel.errors import CallerError


class BillingDetailsForm(forms.Form):
    """One tax id is enough for nearly everybody; more are set through the API and kept here."""

    name = forms.CharField(
        label="Name on invoices",
        required=False,
        max_length=NAME_CHARS_MAX,
        help_text="Left empty: the organisation's name.",
        widget=forms.TextInput(attrs={"autocomplete": "organization"}),
    )
    address = forms.CharField(
        required=False,
        max_length=700,
        help_text="Up to six lines.",
        widget=forms.Textarea(attrs={"rows": 4, "autocomplete": "street-address"}),
    )
    country = forms.CharField(
        required=False,
        max_length=2,
        help_text="Two letters, such as DE.",
        widget=forms.TextInput(attrs={"autocomplete": "country"}),
    )
    tax_id_type = forms.ChoiceField(
        label="Kind of tax id", choices=[("", "None"), *TAX_ID_LABELS.items()], required=False
    )
    tax_ids = forms.CharField(label="Tax id", required=False, max_length=40)
    purchase_order = forms.CharField(
        label="Purchase order",
        required=False,
        max_length=PURCHASE_ORDER_CHARS_MAX,
        help_text="Printed on every invoice from now on.",
    )

    def said(self) -> dict[str, Any]:
        """For the verb. Tax ids beyond the first stay as they are."""
        given = self.cleaned_data
        kept = list(self.initial.get("further_tax_ids", []))
        first = {"type": given["tax_id_type"], "value": given["tax_ids"]}
        return {
            "name": given["name"],
            "address": given["address"],
            "country": given["country"],
            "tax_ids": [*([first] if any(first.values()) else []), *kept],
            "purchase_order": given["purchase_order"],
        }

    def refuse(self, refused: CallerError) -> None:
        """Say at its field why the verb refused."""
        self.add_error(refused.field if refused.field in self.fields else None, refused.message)


def initial(details: BillingDetails) -> dict[str, Any]:
    """What the form begins with."""
    first, *further = details.tax_ids or [{"type": "", "value": ""}]
    return {
        "name": details.name,
        "address": details.address,
        "country": details.country,
        "tax_id_type": first["type"],
        "tax_ids": first["value"],
        "further_tax_ids": further,
        "purchase_order": details.purchase_order,
    }
