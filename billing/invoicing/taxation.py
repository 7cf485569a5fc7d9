"""Which taxes an organisation's invoices carry, and the taxes of one invoice as they were made.

Rates are the operator's: they never change and are retired, for invoices were made with them. An
organisation has any number of them; an exemption stands above them all and says why on the invoice.
Rates and exemptions are of the moment a period is closed: what is changed later is for the next.

Needs the tenant's door, but for the rates themselves, which are written through the system's.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Literal
from uuid import UUID

from django.db import transaction

from billing.invoicing.models import (
    AssignedTax,
    Invoice,
    InvoiceTax,
    TaxExemption,
    TaxMode,
    TaxRate,
)
from billing.invoicing.tax import PERCENT_DIGITS, Rate, TaxAmount, Taxed, tax
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.scoping import current_tenant_id, system_scope

RATES_PER_ORGANISATION_MAX = 10
_REVERSE_CHARGE = "Reverse charge: tax is to be accounted for by the recipient"


def create_rate(
    *, name: str, percentage: str, mode: str, country: str = "", label: str = ""
) -> TaxRate:
    """A new tax rate. Raises `CallerError` `tax_rate_invalid` naming the field."""
    if not name.strip() or len(name) > 40:
        raise _invalid("name", "A tax has a name of at most 40 characters, such as VAT.")
    if mode not in TaxMode.values:
        raise _invalid("mode", "A tax is exclusive (on top of prices) or inclusive (in them).")
    if country and not (len(country) == 2 and country.isascii() and country.isupper()):
        raise _invalid("country", "A country is two capital letters, such as DE.")
    with system_scope("an operator makes a tax rate"):
        made: TaxRate = TaxRate.objects.create(
            name=name.strip(),
            percentage=_percentage(percentage),
            mode=mode,
            country=country,
            label=label[:80],
        )
    return made


def retire_rate(rate_id: UUID) -> TaxRate:
    """No invoice is made with it any more; those that were keep it."""
    with system_scope("an operator retires a tax rate"):
        rate = TaxRate.objects.filter(id=rate_id).first()
        if rate is None:
            raise _unknown_rate(rate_id)
        if rate.retired_at is None:
            rate.retired_at = clock.now()
            rate.save(update_fields=["retired_at"])
    return rate


def assign_rates(rate_ids: Sequence[UUID]) -> None:
    """These rates and no others are the open door's organisation's from now on."""
    if len(set(rate_ids)) != len(rate_ids) or len(rate_ids) > RATES_PER_ORGANISATION_MAX:
        raise CallerError(
            "tax_rates_invalid",
            f"Name each rate once, at most {RATES_PER_ORGANISATION_MAX}.",
            field="rates",
        )
    known = set(
        TaxRate.objects.filter(id__in=rate_ids, retired_at__isnull=True).values_list(
            "id", flat=True
        )
    )
    for rate_id in rate_ids:
        if rate_id not in known:
            raise _unknown_rate(rate_id)
    with transaction.atomic():
        AssignedTax.objects.exclude(rate_id__in=rate_ids).delete()
        kept = set(AssignedTax.objects.values_list("rate_id", flat=True))
        for rate_id in rate_ids:
            if rate_id not in kept:
                AssignedTax.objects.create(tenant_id=current_tenant_id(), rate_id=rate_id)


def exempt(kind: str, reason: str) -> None:
    """From now on no invoice of the organisation carries tax; each says why."""
    if kind not in TaxExemption.Kind.values:
        raise _invalid("kind", "An exemption is exempt or reverse_charge.")
    if not reason.strip() or len(reason) > 200:
        raise _invalid("reason", "Say why, in at most 200 characters: it is on every invoice.")
    TaxExemption.objects.update_or_create(
        tenant_id=current_tenant_id(),
        defaults={"kind": kind, "reason": reason.strip(), "created_at": clock.now()},
    )


def end_exemption() -> None:
    """The organisation's rates apply again."""
    TaxExemption.objects.all().delete()


def exemption() -> TaxExemption | None:
    """Why an invoice made now carries no tax, if it does not."""
    found: TaxExemption | None = TaxExemption.objects.first()
    return found


def assigned_rates() -> list[Rate]:
    """The rates of who is not exempt, in a fixed order."""
    assigned = AssignedTax.objects.filter(rate__retired_at__isnull=True).select_related("rate")
    return sorted((_rate(each.rate) for each in assigned), key=lambda r: (r.name, r.units, r.id))


def taxes_now(lines: Mapping[int, int]) -> tuple[Taxed[int], str]:
    """The taxes of an invoice of these lines, by position, made now, and what it says of none."""
    found = exemption()
    return tax(lines, [] if found else assigned_rates()), tax_note(found)


def tax_note(found: TaxExemption | None) -> str:
    """What an invoice says of an exemption; empty where there is none."""
    if found is None:
        return ""
    if found.kind == TaxExemption.Kind.REVERSE_CHARGE:
        return f"{_REVERSE_CHARGE}. {found.reason}"
    return f"Exempt from tax: {found.reason}"


def record_taxes(invoice: Invoice, taxed: Taxed[int]) -> None:
    """The taxes of an invoice that was just made, with its lines' positions as keys."""
    InvoiceTax.objects.bulk_create(
        InvoiceTax(
            tenant_id=invoice.tenant_id,
            invoice=invoice,
            position=position,
            rate_id=each.rate.id,
            name=each.rate.name,
            percentage=each.rate.percentage,
            mode=each.rate.mode,
            country=each.rate.country,
            taxable_minor=each.taxable_minor,
            amount_minor=each.amount_minor,
        )
        for position, each in enumerate(taxed.taxes, start=1)
    )


def taxes_of(invoice_id: UUID, lines: Mapping[int, int]) -> list[tuple[InvoiceTax, TaxAmount[int]]]:
    """Each tax of an invoice as it stands there, and by line: the same function again, at the
    rates that were frozen with it."""
    rows = list(InvoiceTax.objects.filter(invoice_id=invoice_id).order_by("position"))
    again = tax(lines, [_frozen(row) for row in rows])
    return list(zip(rows, again.taxes, strict=True))


def _rate(row: TaxRate) -> Rate:
    return Rate(row.id, row.name, row.percentage, _mode(row.mode), row.country)


def _frozen(row: InvoiceTax) -> Rate:
    return Rate(row.rate_id, row.name, row.percentage, _mode(row.mode), row.country)


def _mode(text: str) -> Literal["exclusive", "inclusive"]:
    return "inclusive" if text == TaxMode.INCLUSIVE else "exclusive"


def _percentage(text: str) -> Decimal:
    try:
        percentage = Decimal(text)
    except (InvalidOperation, TypeError, ValueError):
        percentage = Decimal("NaN")
    if not percentage.is_finite() or not 0 <= percentage <= 100:
        raise _invalid("percentage", "A percentage is a text from 0 to 100, such as 19 or 7.7.")
    if percentage != round(percentage, PERCENT_DIGITS):
        raise _invalid("percentage", f"A percentage has at most {PERCENT_DIGITS} decimals.")
    return percentage


def _invalid(field: str, message: str) -> CallerError:
    return CallerError("tax_rate_invalid", message, field=field)


def _unknown_rate(rate_id: UUID) -> CallerError:
    return CallerError(
        "tax_rate_not_found", f"There is no tax rate {rate_id} in use.", status=404, field="rates"
    )
