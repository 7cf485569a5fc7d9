"""Plain unit prices: a line for each period, model, service tier, meter and price version. Pure.

Products are exact in pico; each line is rounded once, halves away from zero.

Of a period that was closed, a line owes what is known now less what invoices say: as a difference
of quantities where that comes to the same cent, else of amounts, as an `adjustment`. A version of
before there were entries is always told by quantities, as it was when it was published.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from billing.pricing.entry import Match
from billing.rating.explain import explain, explain_adjustment
from billing.rating.values import (
    METERS,
    TIERS,
    Billed,
    LineKind,
    Period,
    RatedLine,
    UsageCannotBeRated,
    contract_first,
)
from meterplane.kernel.money import pico_to_minor_half_away


class PlainKey(NamedTuple):
    """Identity and order of a line: late periods last, then time, model, tier, meter, version."""

    is_late: bool
    starts_at: datetime
    ends_at: datetime
    model: str
    tier_index: int
    meter_index: int
    price_version_id: UUID
    entry_id: UUID | None
    contract_id: UUID | None


class PlainSum(NamedTuple):
    """What was used of one key, its price, what it is called, and how it was served if its price
    is matched by that."""

    units: int
    unit_price_pico: int
    display_name: str
    served: Match = ()


def plain_lines(
    sums: Mapping[PlainKey, PlainSum], billed: Iterable[Billed] | None, currency: str
) -> list[RatedLine]:
    """Lines in their order, those of price zero too: they are part of what is hashed.

    Without `billed` every unit is owed. Raises `UsageCannotBeRated` for a negative sum.
    """
    facts = {} if billed is None else {_key_of(each): each for each in billed}
    lines = []
    for key in _in_order({*sums, *facts}):
        used = sums.get(key)
        fact = facts.get(key)
        if key.is_late and billed is not None:
            line = _late(key, used, fact, currency)
        elif used is not None and used.units:
            line = _line(key, used.units, used, currency)
        else:
            line = None
        if line is not None:
            lines.append(line)
    return lines


def _in_order(keys: Iterable[PlainKey]) -> Iterator[PlainKey]:
    yield from sorted(
        keys, key=lambda key: (*key[:7], *contract_first(key.entry_id, key.contract_id))
    )


def _key_of(each: Billed) -> PlainKey:
    return PlainKey(
        True,
        each.period.starts_at,
        each.period.ends_at,
        each.model,
        TIERS.index(each.service_tier),
        next(n for n, meter in enumerate(METERS) if meter == each.meter),
        each.price_version_id or UUID(int=0),
        each.entry_id,
        each.contract_id,
    )


def _late(
    key: PlainKey, used: PlainSum | None, fact: Billed | None, currency: str
) -> RatedLine | None:
    if used is None:
        if fact is None or (not fact.quantity and not fact.amount_minor):
            return None
        used = PlainSum(0, fact.unit_price_pico or 0, fact.display_name)
    billed_units = int(fact.quantity) if fact is not None else 0
    units = used.units - billed_units
    if not used.unit_price_pico and not billed_units:
        return None  # never invoiced, so never late
    by_quantity = pico_to_minor_half_away(units * used.unit_price_pico, currency)
    if key.entry_id is None:
        return _line(key, units, used, currency) if units else None
    now_minor = pico_to_minor_half_away(used.units * used.unit_price_pico, currency)
    owed = now_minor - (fact.amount_minor if fact is not None else 0)
    if not units and not owed:
        return None
    if units > 0 and by_quantity == owed:
        return _line(key, units, used, currency)
    meter, tier = METERS[key.meter_index], TIERS[key.tier_index]
    text = explain_adjustment(
        explain(used.units, meter, used.unit_price_pico, now_minor, currency, tier, used.served),
        now_minor - owed,
        owed,
        currency,
    )
    return _made(key, units, used, owed, text, "adjustment")


def _line(key: PlainKey, units: int, used: PlainSum, currency: str) -> RatedLine:
    meter, tier = METERS[key.meter_index], TIERS[key.tier_index]
    if units < 0:
        raise UsageCannotBeRated(
            f"{units} {tier} {meter} of {key.model} at price version {key.price_version_id}:"
            " more was invoiced than was used"
        )
    amount_minor = pico_to_minor_half_away(units * used.unit_price_pico, currency)
    text = explain(units, meter, used.unit_price_pico, amount_minor, currency, tier, used.served)
    return _made(key, units, used, amount_minor, text, "usage")


def _made(
    key: PlainKey, units: int, used: PlainSum, amount_minor: int, text: str, kind: LineKind
) -> RatedLine:
    return RatedLine(
        period=Period(key.starts_at, key.ends_at, key.is_late),
        model=key.model,
        meter=METERS[key.meter_index],
        price_version_id=key.price_version_id,
        quantity=units,
        unit_price_pico=used.unit_price_pico,
        amount_pico=units * used.unit_price_pico,
        amount_minor=amount_minor,
        explanation=text,
        service_tier=TIERS[key.tier_index],
        kind=kind,
        display_name=used.display_name,
        entry_id=key.entry_id,
        contract_id=key.contract_id,
        breakdown={"match": dict(used.served)} if used.served else None,
    )
