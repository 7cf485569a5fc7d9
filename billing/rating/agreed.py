"""What a contract says beside prices: discount, bounds and commitment of a calendar month. Pure.

Reckoned in this order, each a line of its own, each rounded once, halves away from zero:

    usage          what the month's usage owes, all its lines
    discount       less its percentage of that
    maximum        less what is then above the maximum
    minimum        plus what is then missing to the minimum      } once the month, or the contract
    commitment     plus what is then missing to the commitment   } in it, is over

A bound or commitment is for a whole month; where the contract holds for part of it, it is that part
of it by the day. Like all of rating, a line owes what is known now less what invoices say.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple
from uuid import UUID

from billing.pricing.contract import Contract, Terms
from billing.rating.explain import explain_adjustment, with_sign
from billing.rating.prorate import Span, prorate
from billing.rating.values import KINDS, Billed, LineKind, Period, RatedLine, month_after
from meterplane.kernel.money import divide_half_away, minor_digits, minor_to_text

_NAMES: dict[LineKind, str] = {
    "discount": "Discount",
    "maximum": "Maximum spend",
    "minimum": "Minimum spend",
    "commitment": "Commitment",
}


class Owed(NamedTuple):
    """One line's whole amount for the month, and how it comes about."""

    kind: LineKind
    amount_minor: int
    explanation: str


class AgreedKey(NamedTuple):
    """One contract in one calendar month."""

    month: datetime
    contract_id: UUID


def agreed_lines(
    contracts: Mapping[UUID, Contract],
    usage_minor: Mapping[AgreedKey, int],
    billed: Iterable[Billed],
    periods: Mapping[datetime, Period],
    until: datetime,
    currency: str,
) -> list[RatedLine]:
    """Lines of every contract that holds in one of the months of `periods`.

    `usage_minor`: what usage owes in a month by all its lines, billed ones included.
    """
    facts: dict[tuple[AgreedKey, LineKind], int] = {}
    for each in billed:
        if each.contract_id is not None:
            facts[AgreedKey(each.period.starts_at, each.contract_id), each.kind] = each.amount_minor
    lines = []
    for month in sorted(periods):
        for contract in sorted(contracts.values(), key=lambda each: each.number):
            key = AgreedKey(month, contract.id)
            held = _held(contract.terms, month)
            if held.starts_at >= min(held.ends_at, until):
                continue
            for owed in month_of_contract(
                contract.terms, month, usage_minor.get(key, 0), until, currency
            ):
                before = facts.get((key, owed.kind))
                line = _line(contract, owed, before, periods[month], currency)
                if line is not None:
                    lines.append(line)
    return lines


def month_of_contract(
    terms: Terms, month: datetime, usage_minor: int, until: datetime, currency: str
) -> Iterator[Owed]:
    """Each kind's amount for the month, as it is known at `until`; of zero where none is due."""

    def text(amount_minor: int) -> str:
        return with_sign(minor_to_text(amount_minor, currency), currency)

    part = usage_minor * Fraction(terms.discount_percent)
    discount = -divide_half_away(part.numerator, part.denominator * 100)
    shown = format(terms.discount_percent.normalize(), "f")
    yield Owed("discount", discount, f"{shown} % of {text(usage_minor)} = {text(discount)}")
    spent = usage_minor + discount
    over = 0
    if terms.maximum_minor is not None:
        most, of_month = _share(terms.maximum_minor, terms, month)
        over = min(0, most - spent)
        yield Owed(
            "maximum",
            over,
            f"{text(spent)} is above the maximum of {text(most)}{of_month}: {text(over)}",
        )
    spent += over
    is_over = until >= min(month_after(month), terms.ends_at or month_after(month))
    for kind, agreed in (("minimum", terms.minimum_minor), ("commitment", terms.commitment_minor)):
        if agreed is None:
            continue
        least, of_month = _share(agreed, terms, month)
        missing = max(0, least - spent) if is_over else 0
        yield Owed(
            next(each for each in KINDS if each == kind),
            missing,
            f"{text(least)}{of_month} agreed, {text(spent)} spent: {text(missing)} is missing",
        )
        spent += missing


def _line(
    contract: Contract, owed: Owed, before: int | None, period: Period, currency: str
) -> RatedLine | None:
    amount_minor = owed.amount_minor - (before or 0)
    if not amount_minor:
        return None
    text = owed.explanation
    if before:
        text = explain_adjustment(text, before, amount_minor, currency)
    return RatedLine(
        period=period,
        model="",
        meter="",
        price_version_id=None,
        quantity=0,
        unit_price_pico=None,
        amount_pico=None,
        amount_minor=amount_minor,
        explanation=text,
        kind=owed.kind,
        display_name=f"{_NAMES[owed.kind]}, contract {contract.number}",
        contract_id=contract.id,
    )


def _share(amount_minor: int, terms: Terms, month: datetime) -> tuple[int, str]:
    """The part of a month's amount for the days of the month the contract holds."""
    whole = Span(month, month_after(month))
    held = _held(terms, month)
    if held == whole:
        return amount_minor, ""
    currency = terms.currency
    amount = Decimal(amount_minor).scaleb(-minor_digits(currency))
    part = prorate(amount, held, whole, "day", currency)
    return part, f" for {held.count('day')} of {whole.count('day')} days"


def _held(terms: Terms, month: datetime) -> Span:
    """When the contract holds in the month; it ends before it starts where it does not."""
    end = month_after(month)
    return Span(
        max(terms.starts_at, month), end if terms.ends_at is None else min(terms.ends_at, end)
    )
