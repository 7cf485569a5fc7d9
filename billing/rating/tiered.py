"""Entries that are more than a unit price: a line for all that an entry matched. Pure.

Tiers, packages, free units and bounds count by the calendar month, in UTC, however often the month
is invoiced: a line owes the price of everything the month has so far, less what invoices say of it.
So a month that is closed early pays its flat amounts once, and usage that comes late moves the
quantity into the tier it belongs to, which may owe less than was billed. An entry that matched
nothing owes nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, localcontext
from typing import Any, NamedTuple
from uuid import UUID

from billing.pricing.entry import Entry
from billing.pricing.price_model import price_model_to_json
from billing.rating.explain import explain_adjustment, explain_priced
from billing.rating.price import Priced, price
from billing.rating.values import Billed, Period, RatedLine, contract_first
from meterplane.kernel.decimals import EXACT, ZERO, decimal_to_text
from meterplane.kernel.money import minor_to_text


class TieredKey(NamedTuple):
    """What is priced together. The version is that of a book's entry, None for a contract's own."""

    month: datetime
    price_version_id: UUID | None
    entry_id: UUID
    contract_id: UUID | None


@dataclass(slots=True)
class TieredSum:
    """What an entry matched in a month, by model and service tier."""

    entry: Entry
    parts: dict[tuple[str, str], Decimal | int] = field(default_factory=lambda: defaultdict(int))

    @property
    def quantity(self) -> Decimal:
        """All of it, exact."""
        with localcontext(EXACT):
            return sum(map(Decimal, self.parts.values()), ZERO)


def tiered_lines(
    sums: Mapping[TieredKey, TieredSum],
    billed: Iterable[Billed],
    periods: Mapping[datetime, Period],
    final_months: frozenset[datetime],
    currency: str,
) -> list[RatedLine]:
    """Lines by month and name; `periods` says which period a month's line names."""
    facts: dict[TieredKey, Billed] = {_key_of(each): each for each in billed}
    lines = []
    for key in {*sums, *facts}:
        used = sums.get(key)
        fact = facts.get(key)
        period = periods[key.month]
        if used is not None:
            is_final = key.month in final_months
            line = _line(key, used, fact, period, is_final=is_final, currency=currency)
        else:
            line = _gone(key, fact, period, currency) if fact is not None else None
        if line is not None:
            lines.append(line)
    return sorted(lines, key=_order)


def _order(line: RatedLine) -> tuple[object, ...]:
    """Total: lines come out of a set, and their order is hashed."""
    return (
        line.period.starts_at,
        line.display_name,
        str(line.price_version_id),
        *contract_first(line.entry_id, line.contract_id),
    )


def _key_of(each: Billed) -> TieredKey:
    month = each.period.starts_at
    return TieredKey(month, each.price_version_id, each.entry_id or UUID(int=0), each.contract_id)


def _line(
    key: TieredKey,
    used: TieredSum,
    fact: Billed | None,
    period: Period,
    *,
    is_final: bool,
    currency: str,
) -> RatedLine | None:
    quantity = used.quantity
    priced = price(used.entry.price_model, quantity, currency, final=is_final)
    before_quantity = Decimal(fact.quantity) if fact is not None else ZERO
    before_minor = fact.amount_minor if fact is not None else 0
    owed = priced.amount_minor - before_minor
    with localcontext(EXACT):
        added = quantity - before_quantity
    if not owed and not added:
        return None
    text = explain_priced(used.entry.meter, quantity, used.entry.price_model, priced, currency)
    if fact is not None:
        text = explain_adjustment(text, before_minor, owed, currency)
    models = sorted({model for model, _ in used.parts if model})
    return RatedLine(
        period=period,
        model=models[0] if len(models) == 1 else "",
        meter=used.entry.meter,
        price_version_id=key.price_version_id,
        quantity=_plain(added),
        unit_price_pico=None,
        amount_pico=None,
        amount_minor=owed,
        explanation=text,
        kind="usage" if added > 0 and (fact is None or not period.is_late) else "adjustment",
        display_name=used.entry.display_name,
        entry_id=key.entry_id,
        contract_id=key.contract_id,
        price_model=price_model_to_json(used.entry.price_model),
        breakdown=_breakdown(used, priced, fact, currency),
    )


def _gone(key: TieredKey, fact: Billed, period: Period, currency: str) -> RatedLine | None:
    """What was billed by an entry that nothing is priced by any more is given back."""
    if not fact.amount_minor and not fact.quantity:
        return None
    return RatedLine(
        period=period,
        model=fact.model,
        meter=fact.meter,
        price_version_id=key.price_version_id,
        quantity=_plain(-Decimal(fact.quantity)),
        unit_price_pico=None,
        amount_pico=None,
        amount_minor=-fact.amount_minor,
        explanation=explain_adjustment(
            "Nothing is used of it", fact.amount_minor, -fact.amount_minor, currency
        ),
        kind="adjustment",
        display_name=fact.display_name,
        entry_id=key.entry_id,
        contract_id=key.contract_id,
        breakdown={"tiers": [], "quantity": "0", "amount": minor_to_text(0, currency)},
    )


def _breakdown(
    used: TieredSum, priced: Priced, fact: Billed | None, currency: str
) -> dict[str, Any]:
    """The tiers whose amounts add up to `exact`, of which `amount` is the one rounding."""
    text = decimal_to_text
    found: dict[str, Any] = {
        "tiers": [
            {
                "tier": each.tier,
                "kind": each.kind,
                "quantity": text(each.quantity),
                "unit_amount": None if each.unit_amount is None else text(each.unit_amount),
                "flat_amount": text(each.flat_amount),
                "amount": text(each.amount),
            }
            for each in priced.lines
        ],
        "quantity": text(used.quantity),
        "exact": text(priced.exact),
        "amount": minor_to_text(priced.amount_minor, currency),
        "matched": [
            {"model": model, "service_tier": tier, "quantity": text(Decimal(units))}
            for (model, tier), units in sorted(used.parts.items())
        ],
    }
    if fact is not None:
        found["billed_before"] = {
            "quantity": text(Decimal(fact.quantity)),
            "amount": minor_to_text(fact.amount_minor, currency),
        }
    return found


def _plain(quantity: Decimal) -> int | Decimal:
    """Whole quantities are integers, as they are everywhere else."""
    whole = int(quantity)
    return whole if whole == quantity else quantity
