"""Tax of one amount at given rates. Pure; each tax is rounded once, half away from zero.

Inclusive taxes lie inside the amount: `amount x rate / (100 % + all inclusive rates)`. Exclusive
ones come on top of what is left: `(amount - inclusive taxes) x rate`. How Stripe rounds is not
documented in full; here every line and rate rounds by itself, and totals are sums of lines.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal

from stripe_sandbox.rounding import quotient
from stripe_sandbox.store import Document
from stripe_sandbox.tax_rates import PERCENTAGE_PLACES

_WHOLE = 100 * 10**PERCENTAGE_PLACES  # 100 % in units of the last decimal place

# A customer's `tax_exempt`, and why then nothing is charged.
_EXEMPT = {"exempt": "customer_exempt", "reverse": "reverse_charge"}


def of_amount(
    amount_minor: int, rates: Sequence[Document], exempt: str | None, reason: str
) -> list[Document]:
    """One entry per rate, in Stripe's shape; `reason` is told where tax is charged."""
    waived = _EXEMPT.get(exempt or "none")
    inside = sum(_units(rate) for rate in rates if rate["inclusive"])
    included = {
        rate["id"]: quotient(amount_minor * _units(rate), _WHOLE + inside)
        for rate in rates
        if rate["inclusive"]
    }
    taxable = amount_minor - sum(included.values())
    taxes = []
    for rate in rates:
        on_top = quotient(taxable * _units(rate), _WHOLE)
        amount = 0 if waived else included.get(rate["id"], on_top)
        taxes.append(
            entry(
                amount,
                taxable,
                rate,
                waived or (reason if _units(rate) else "zero_rated"),
            )
        )
    return taxes


def entry(amount_minor: int, taxable_minor: int, rate: Document, reason: str) -> Document:
    """A tax on a line."""
    return {
        "amount": amount_minor,
        "tax_behavior": "inclusive" if rate["inclusive"] else "exclusive",
        "tax_rate_details": {"tax_rate": rate["id"]},
        "taxability_reason": reason,
        "taxable_amount": taxable_minor,
        "type": "tax_rate_details",
    }


def summed(taxes: Iterable[Document]) -> list[Document]:
    """Taxes of many lines, one entry per rate, behaviour and reason."""
    totals: dict[tuple[str, str, str], Document] = {}
    for tax in taxes:
        key = (
            tax["tax_rate_details"]["tax_rate"],
            tax["tax_behavior"],
            tax["taxability_reason"],
        )
        if key in totals:
            totals[key]["amount"] += tax["amount"]
            totals[key]["taxable_amount"] += tax["taxable_amount"]
        else:
            totals[key] = dict(tax)
    return list(totals.values())


def amount_of(taxes: Iterable[Document], behavior: str) -> int:
    """Sum of the exclusive, or of the inclusive ones."""
    return sum(tax["amount"] for tax in taxes if tax["tax_behavior"] == behavior)


def _units(rate: Document) -> int:
    return int(Decimal(rate["_percentage"]).scaleb(PERCENTAGE_PLACES))
