"""Which taxes an organisation's invoices carry, and the taxes of one invoice as they were made.

Rates are the operator's: they never change and are retired, for invoices were made with them. An
organisation has any number of them; an exemption stands above them all and says why on the invoice.
Rates and exemptions are of the moment a period is closed: what is changed later is for the next.

What interim invoices of the period bore is taken back rate by rate, as it stands there, and the
whole period is taxed at the rates of its own invoice. Credit that they drew is no part of what is
taxed, as it is of no invoice: the line that takes an interim invoice back bears it.

Where Stripe computes them (`tax_choice`), an invoice is made without, and gets them later
(`provider_tax`).

Needs the tenant's door, but for the rates themselves, which are written through the system's.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from typing import Literal
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Sum

from billing.invoicing.models import (
    AssignedTax,
    Invoice,
    InvoiceLine,
    InvoiceTax,
    StripeTax,
    TaxedBy,
    TaxExemption,
    TaxMode,
    TaxRate,
)
from billing.invoicing.provider_tax import UPCOMING_NOTE
from billing.invoicing.tax import PERCENT_DIGITS, Rate, TaxAmount, Taxed, shares_of, tax
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.scoping import current_tenant_id, system_scope

RATES_PER_ORGANISATION_MAX = 10
_INTERIM = InvoiceLine.Kind.INTERIM
_TAXED_HOW = """
SELECT e.kind, e.reason, s.tenant_id IS NOT NULL,
       r.id, r.name, r.percentage, r.mode, r.country
  FROM (VALUES (%s::uuid)) AS o (tenant_id)
  LEFT JOIN tax_exemption e USING (tenant_id)
  LEFT JOIN stripe_tax s USING (tenant_id)
  LEFT JOIN assigned_tax a USING (tenant_id)
  LEFT JOIN tax_rate r ON r.id = a.rate_id AND r.retired_at IS NULL
"""
_REVERSE_CHARGE = "Reverse charge: tax is to be accounted for by the recipient"


def check_rate(*, name: str, percentage: str, mode: str, country: str = "") -> Decimal:
    """The percentage of a rate that can be made, exact.

    Raises `CallerError` `tax_rate_invalid` naming the field.
    """
    if not name.strip() or len(name) > 40:
        raise _invalid("name", "A tax has a name of at most 40 characters, such as VAT.")
    if mode not in TaxMode.values:
        raise _invalid("mode", "A tax is exclusive (on top of prices) or inclusive (in them).")
    if country and not (len(country) == 2 and country.isascii() and country.isupper()):
        raise _invalid("country", "A country is two capital letters, such as DE.")
    return _percentage(percentage)


def create_rate(
    *, name: str, percentage: str, mode: str, country: str = "", label: str = ""
) -> TaxRate:
    """A new tax rate. Raises `CallerError` as `check_rate` does."""
    checked = check_rate(name=name, percentage=percentage, mode=mode, country=country)
    with system_scope("an operator makes a tax rate"):
        made: TaxRate = TaxRate.objects.create(
            name=name.strip(),
            percentage=checked,
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
    """These rates and no others are the open door's organisation's from now on, and not Stripe."""
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
        StripeTax.objects.all().delete()
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


def tax_note(found: TaxExemption | None) -> str:
    """What an invoice says of an exemption; empty where there is none."""
    if found is None:
        return ""
    if found.kind == TaxExemption.Kind.REVERSE_CHARGE:
        return f"{_REVERSE_CHARGE}. {found.reason}"
    return f"Exempt from tax: {found.reason}"


@dataclass(frozen=True, slots=True)
class TakenBack:
    """What an interim invoice had of one tax, below zero."""

    interim_id: UUID
    note: str
    rate: Rate
    taxable_minor: int
    amount_minor: int


@dataclass(frozen=True, slots=True)
class InvoiceTaxes:
    """The taxes of an invoice: its own by line position, and what it takes back. Those that Stripe
    computes are not known yet."""

    own: Taxed[int]
    taken_back: Sequence[TakenBack] = field(default=())
    taxed_by: TaxedBy = TaxedBy.RATES

    @property
    def exclusive_minor(self) -> int:
        return self.own.exclusive_minor + self._back("exclusive")

    @property
    def inclusive_minor(self) -> int:
        return self.own.inclusive_minor + self._back("inclusive")

    def _back(self, mode: str) -> int:
        return sum(each.amount_minor for each in self.taken_back if each.rate.mode == mode)


def taxes_now(
    lines: Mapping[int, int], taking_back: Mapping[UUID, str], subtotal_minor: int
) -> tuple[InvoiceTaxes, str]:
    """The taxes of an invoice of these lines, by position, made now, and what it says of none.

    `taking_back` are the interim invoices that it takes back, with what is said of each; of a line
    that does so what is taxed is given (`Interim.taxable_minor`). `subtotal_minor` is of all lines
    as they stand.
    """
    found, rates, by_stripe = taxed_how()
    taxes = InvoiceTaxes(tax(lines, rates), _taken_back(taking_back) if taking_back else ())
    if by_stripe and not (found or rates) and subtotal_minor + taxes.exclusive_minor > 0:
        return replace(taxes, taxed_by=TaxedBy.STRIPE), UPCOMING_NOTE
    return taxes, tax_note(found)


def taxed_how() -> tuple[TaxExemption | None, list[Rate], bool]:
    """The exemption, the rates of who is not exempt in a fixed order, and whether Stripe is asked:
    one statement, for every look at what is spent needs it."""
    with connection.cursor() as cursor:
        cursor.execute(_TAXED_HOW, [current_tenant_id()])
        rows = cursor.fetchall()
    kind, reason, by_stripe = rows[0][:3]
    if kind is not None:
        return TaxExemption(kind=kind, reason=reason), [], by_stripe
    rates = [
        Rate(rate_id, name, percentage, _mode(mode), country)
        for *_, rate_id, name, percentage, mode, country in rows
        if rate_id is not None
    ]
    return None, sorted(rates, key=lambda r: (r.name, r.units, r.id)), by_stripe


def record_taxes(invoice: Invoice, taxes: InvoiceTaxes) -> None:
    """The taxes of an invoice that was just made."""
    told: list[tuple[TaxAmount[int] | TakenBack, UUID | None, str]] = [
        (each, None, "") for each in taxes.own.taxes
    ]
    told += [(each, each.interim_id, each.note) for each in taxes.taken_back]
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
            interim_id=interim_id,
            note=note,
        )
        for position, (each, interim_id, note) in enumerate(told, start=1)
    )


def _taken_back(notes: Mapping[UUID, str]) -> list[TakenBack]:
    """Of each interim invoice and each rate that it bore, in their order; rates of which nothing
    is left there, for it took back earlier ones itself, have none."""
    sums: dict[tuple[UUID, UUID], list[InvoiceTax]] = defaultdict(list)
    rows_at_rates = InvoiceTax.objects.filter(invoice_id__in=notes, rate__isnull=False)
    for row in rows_at_rates.order_by("position"):
        sums[row.invoice_id, row.rate_id].append(row)
    return [
        TakenBack(interim_id, note, _frozen(rows[0]), -taxable, -amount)
        for interim_id, note in notes.items()
        for (of, _), rows in sums.items()
        if of == interim_id
        for taxable in [sum(row.taxable_minor for row in rows)]
        for amount in [sum(row.amount_minor for row in rows)]
        if taxable or amount
    ]


def taxes_of(invoice_id: UUID, lines: Mapping[int, int]) -> list[tuple[InvoiceTax, TaxAmount[int]]]:
    """Each tax of an invoice as it stands there, and by line: the same function again, at the
    rates that were frozen with it. One that is taken back is of the line that does so; one that
    Stripe computed is of all lines as they stand, in proportion."""
    rows = list(InvoiceTax.objects.filter(invoice_id=invoice_id).order_by("position"))
    own = [row for row in rows if row.interim_id is None and row.rate_id is not None]
    taking = dict(
        InvoiceLine.objects.filter(invoice_id=invoice_id, kind=_INTERIM).values_list(
            "interim_id", "position"
        )
    )
    at_rates = _at_rates(taking)
    drawn = credit_drawn(at_rates)
    base = {**lines, **{taking[interim]: -drawn[interim] for interim in at_rates}}
    again = tax(base, [_frozen(row) for row in own])
    found = list(zip(own, again.taxes, strict=True))
    for row in rows:
        if row.rate_id is None:
            by_line = shares_of(row.amount_minor, lines)
        elif row.interim_id is not None:
            by_line = dict.fromkeys(lines, 0) | {taking[row.interim_id]: row.amount_minor}
        else:
            continue
        back = TaxAmount(_frozen(row), row.taxable_minor, row.amount_minor, by_line)
        found.append((row, back))
    return found


def _at_rates(interim_ids: Collection[UUID]) -> list[UUID]:
    """Those that Stripe did not tax."""
    if not interim_ids:
        return []
    rows = Invoice.objects.filter(id__in=interim_ids, taxed_by=TaxedBy.RATES).order_by()
    return list(rows.values_list("id", flat=True))


def credit_drawn(interim_ids: Collection[UUID]) -> dict[UUID, int]:
    """What interim invoices drew of credit, as they say themselves."""
    if not interim_ids:
        return {}
    rows = InvoiceLine.objects.filter(
        invoice_id__in=interim_ids, kind=InvoiceLine.Kind.CREDIT
    ).order_by()
    drawn = dict(rows.values_list("invoice_id").annotate(drawn=-Sum("amount_minor")))
    return {interim_id: int(drawn.get(interim_id, 0)) for interim_id in interim_ids}


def _frozen(row: InvoiceTax) -> Rate:
    return Rate(row.rate_id or row.id, row.name, row.percentage, _mode(row.mode), row.country)


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
