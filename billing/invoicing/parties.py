"""Who an invoice is from and who it is made out to.

Guarantees: what is written here is a name, an address, tax ids and a purchase order that can be
printed: no control characters, bounded, ids in the loose form of their kind. Both parties are
frozen on an invoice with its number: what is changed later is on the next one.

Does not know whether a tax id exists: only its form is looked at.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from billing.invoicing.document_models import (
    ADDRESS_LINE_CHARS_MAX,
    ADDRESS_LINES_MAX,
    BillingDetails,
)
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.queries import organisation
from tenants.scoping import current_tenant_id

_UNPRINTED = {"Cc", "Cf", "Cs", "Co", "Cn"}
_JOINERS = "\u200c\u200d"  # which some scripts write names with
TAX_IDS_MAX = 5
NAME_CHARS_MAX = 120
PURCHASE_ORDER_CHARS_MAX = 40
TAX_ID_FORMS = {
    "eu_vat": (re.compile(r"[A-Z]{2}[0-9A-Z+*]{2,12}"), "such as DE123456789"),
    "gb_vat": (re.compile(r"(GB)?([0-9]{9}|[0-9]{12}|(GD|HA)[0-9]{3})"), "such as GB123456789"),
    "ch_vat": (re.compile(r"CHE[0-9]{9}(MWST|TVA|IVA)?"), "such as CHE123456789MWST"),
    "us_ein": (re.compile(r"[0-9]{2}-?[0-9]{7}"), "such as 12-3456789"),
    "in_gst": (re.compile(r"[0-9]{2}[A-Z0-9]{13}"), "such as 12ABCDE3456FGZH"),
    "au_abn": (re.compile(r"[0-9]{11}"), "11 digits"),
    "other": (re.compile(r"[0-9A-Z][0-9A-Z./+*-]{3,29}"), "4 to 30 letters and digits"),
}
# How an address line ends that says the state and the postal code.
_STATE_FORMS = {
    "US": re.compile(r"\b([A-Z]{2}),? +([0-9]{5}(?:-[0-9]{4})?)$"),
    "CA": re.compile(r"\b([A-Z]{2}),? +([A-Z][0-9][A-Z] ?[0-9][A-Z][0-9])$"),
}
TAX_ID_LABELS = {
    "eu_vat": "EU VAT number",
    "gb_vat": "UK VAT number",
    "ch_vat": "Swiss VAT number",
    "us_ein": "US EIN",
    "in_gst": "Indian GSTIN",
    "au_abn": "Australian ABN",
    "other": "Other tax id",
}


def details() -> BillingDetails:
    """What the open door's organisation gave; empty fields before it gave anything."""
    found: BillingDetails | None = BillingDetails.objects.first()
    return found or BillingDetails(tenant_id=current_tenant_id())


def set_details(
    *,
    name: str,
    address: str,
    country: str,
    tax_ids: Sequence[Mapping[str, str]],
    purchase_order: str,
) -> BillingDetails:
    """Replace them. Raises `CallerError` `billing_details_invalid` naming the field.

    Needs the tenant's door. Invoices that have their number keep what they say.
    """
    lines = [_printable("address", line) for line in address.splitlines()]
    lines = [line for line in lines if line]
    if len(lines) > ADDRESS_LINES_MAX or any(len(line) > ADDRESS_LINE_CHARS_MAX for line in lines):
        raise _invalid(
            "address",
            f"An address has at most {ADDRESS_LINES_MAX} lines of {ADDRESS_LINE_CHARS_MAX}"
            " characters.",
        )
    country = country.strip().upper()
    if country and not re.fullmatch(r"[A-Z]{2}", country):
        raise _invalid("country", "A country is two letters (ISO 3166), such as DE.")
    if len(tax_ids) > TAX_IDS_MAX:
        raise _invalid("tax_ids", f"At most {TAX_IDS_MAX} tax ids.")
    written: BillingDetails
    written, _ = BillingDetails.objects.update_or_create(
        tenant_id=current_tenant_id(),
        defaults={
            "name": _bounded("name", name, NAME_CHARS_MAX),
            "address": "\n".join(lines),
            "country": country,
            "tax_ids": [_tax_id(each) for each in tax_ids],
            "purchase_order": _bounded("purchase_order", purchase_order, PURCHASE_ORDER_CHARS_MAX),
            "changed_at": clock.now(),
        },
    )
    return written


@dataclass(frozen=True, slots=True)
class Place:
    """Where the organisation is billed, for what computes taxes; unknown parts are empty."""

    lines: tuple[str, ...]
    country: str
    state: str
    postal_code: str


def billing_place() -> Place:
    """Of the billing details. An address is free text: where taxes are by state, in the United
    States and Canada, a line that ends as they are written there says which."""
    given = details()
    lines = tuple(given.address.splitlines())
    form = _STATE_FORMS.get(given.country)
    found = [match for line in reversed(lines) if form and (match := form.search(line))]
    state, postal_code = found[0].groups() if found else ("", "")
    return Place(lines, given.country, state, postal_code)


def buyer_now() -> dict[str, Any]:
    """The organisation as an invoice made now names it: by its own name where it gave no other."""
    given = details()
    return {
        "name": given.name or organisation().name,
        "address": given.address,
        "country": given.country,
        "tax_ids": given.tax_ids,
        "purchase_order": given.purchase_order,
    }


def seller_now() -> dict[str, str]:
    """This installation's operator, as its settings name it."""
    return dict(settings.SELLER)


def _tax_id(given: Mapping[str, str]) -> dict[str, str]:
    """Without the spaces and dots people write in them; a dash is part of some."""
    kind = given.get("type", "")
    if kind not in TAX_ID_FORMS:
        raise _invalid("tax_ids", f"A tax id is one of {', '.join(TAX_ID_FORMS)}.")
    form, example = TAX_ID_FORMS[kind]
    value = re.sub(r"[\s.]", "", given.get("value", "")).upper()
    if kind == "ch_vat":
        value = value.replace("-", "")
    if not form.fullmatch(value):
        raise _invalid("tax_ids", f"This is no {TAX_ID_LABELS[kind]}: it is {example}.")
    return {"type": kind, "value": value}


def _bounded(field: str, text: str, chars_max: int) -> str:
    text = _printable(field, text)
    if len(text) > chars_max:
        raise _invalid(field, f"At most {chars_max} characters.")
    return text


def _printable(field: str, text: str) -> str:
    """One form of each letter, and nothing that cannot be printed."""
    text = " ".join(unicodedata.normalize("NFC", text).split())
    letters = (letter for letter in text if letter not in _JOINERS)
    if any(unicodedata.category(letter) in _UNPRINTED for letter in letters):
        raise _invalid(field, "Only letters, digits and signs that can be printed.")
    return text


def _invalid(field: str, message: str) -> CallerError:
    return CallerError("billing_details_invalid", message, field=field)
