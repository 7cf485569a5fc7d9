"""Rating: quantities times pinned prices, as one pure function.

Guarantees: the result is a function of the *sums* per (period, model, service tier, meter, price
version) and of the prices of those versions. The order of the inputs, how they were batched or
split, and empty inputs cannot change it; the same inputs give the same lines and the same
`content_hash`. Products are exact in pico; each line is rounded once, halves away from zero, to the
currency's minor unit; the total is the sum of the rounded lines, so an invoice always adds up.

Does not know where quantities come from, who owes them, or what has been invoiced before.

A meter whose price is zero owes nothing and gets no line; its quantity still enters the hash. A
quantity without a price is never rated as zero: it is refused, and so is usage of a service tier
that its version does not offer for the model.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, get_args
from uuid import UUID

from billing.pricing.book import Meter, PublishedBook
from billing.rating.explain import explain
from meterplane.contracts.usage import ServiceTier
from meterplane.kernel.invariant import InvariantBroken
from meterplane.kernel.money import minor_digits, pico_to_minor_half_away, pico_to_text

METERS: tuple[Meter, ...] = get_args(Meter)  # also the order of a model's lines
TIERS: tuple[ServiceTier, ...] = get_args(ServiceTier)  # and those of one tier before the next's


class UsageCannotBeRated(InvariantBroken):
    """A quantity has no price, a negative sum or a foreign currency. Nothing is guessed."""


@dataclass(frozen=True, slots=True)
class Period:
    """Half-open, UTC. `is_late` marks a period that had been closed when its usage arrived."""

    starts_at: datetime
    ends_at: datetime
    is_late: bool = False


@dataclass(frozen=True, slots=True)
class Quantity:
    """Units of one meter of one model in one period, pinned to a price-book version."""

    period: Period
    model: str
    meter: Meter
    price_version_id: UUID
    units: int
    service_tier: ServiceTier = "standard"


@dataclass(frozen=True, slots=True)
class RatedLine:
    """What one (period, model, service tier, meter, price version) owes."""

    period: Period
    model: str
    meter: Meter
    price_version_id: UUID
    quantity: int
    unit_price_pico: int
    amount_pico: int
    amount_minor: int
    explanation: str
    service_tier: ServiceTier = "standard"


@dataclass(frozen=True, slots=True)
class RatedPeriod:
    """All lines, their sum, and the SHA-256 (hex) over canonical inputs and outputs."""

    currency: str
    lines: tuple[RatedLine, ...]
    total_minor: int
    content_hash: str


class _Key(NamedTuple):
    """Identity and order of a line: late periods last, then time, model, tier, meter, version."""

    is_late: bool
    starts_at: datetime
    ends_at: datetime
    model: str
    tier_index: int
    meter_index: int
    price_version_id: UUID


def rate(
    quantities: Iterable[Quantity],
    prices: Mapping[UUID, PublishedBook],
    currency: str,
) -> RatedPeriod:
    """Rate `quantities` at the prices of the versions they are pinned to.

    Raises `UsageCannotBeRated` for a version or price that is missing, a version in another
    currency than `currency`, or a negative sum; `UnknownCurrency` for a currency whose minor unit
    is not known.
    """
    minor_digits(currency)
    sums: dict[_Key, int] = defaultdict(int)
    for quantity in quantities:
        sums[_key(quantity)] += quantity.units
    rated = [_rated(key, sums[key], prices, currency) for key in sorted(sums) if sums[key]]
    lines = tuple(line for line in rated if line.unit_price_pico)
    total_minor = sum(line.amount_minor for line in lines)
    return RatedPeriod(
        currency=currency,
        lines=lines,
        total_minor=total_minor,
        content_hash=_content_hash(currency, rated, total_minor),
    )


def _key(quantity: Quantity) -> _Key:
    period = quantity.period
    return _Key(
        period.is_late,
        period.starts_at,
        period.ends_at,
        quantity.model,
        TIERS.index(quantity.service_tier),
        METERS.index(quantity.meter),
        quantity.price_version_id,
    )


def _rated(key: _Key, units: int, prices: Mapping[UUID, PublishedBook], currency: str) -> RatedLine:
    meter, tier = METERS[key.meter_index], TIERS[key.tier_index]
    where = f"{units} {tier} {meter} of {key.model} at price version {key.price_version_id}"
    version = prices.get(key.price_version_id)
    if version is None:
        raise UsageCannotBeRated(f"{where}: there is no such price version")
    if version.currency != currency:
        raise UsageCannotBeRated(f"{where}: priced in {version.currency}, billed in {currency}")
    model_prices = version.prices.get(key.model)
    if model_prices is None:
        raise UsageCannotBeRated(f"{where}: the version has no price for this model")
    unit_price_pico = model_prices.of(meter, tier)
    if unit_price_pico is None:
        raise UsageCannotBeRated(f"{where}: the version has no {tier} prices for this model")
    if units < 0:
        raise UsageCannotBeRated(f"{where}: more was invoiced than was used")
    amount_pico = units * unit_price_pico
    amount_minor = pico_to_minor_half_away(amount_pico, currency)
    return RatedLine(
        period=Period(key.starts_at, key.ends_at, key.is_late),
        model=key.model,
        meter=meter,
        price_version_id=key.price_version_id,
        quantity=units,
        unit_price_pico=unit_price_pico,
        amount_pico=amount_pico,
        amount_minor=amount_minor,
        explanation=explain(units, meter, unit_price_pico, amount_minor, currency, tier),
        service_tier=tier,
    )


def _tier_in_hash(line: RatedLine) -> dict[str, str]:
    """Only of what is not standard: bills from before there were tiers keep their hash."""
    return {} if line.service_tier == "standard" else {"tier": line.service_tier}


def _content_hash(currency: str, rated: list[RatedLine], total_minor: int) -> str:
    """Each line carries its input (quantity, price) and its output (amounts): one list is both."""
    canonical = {
        "rating": 1,
        "currency": currency,
        "lines": [
            {
                "from": line.period.starts_at.isoformat(),
                "until": line.period.ends_at.isoformat(),
                "late": line.period.is_late,
                "model": line.model,
                "meter": line.meter,
                "price_version": str(line.price_version_id),
                "quantity": str(line.quantity),
                "unit_price": pico_to_text(line.unit_price_pico),
                "amount": pico_to_text(line.amount_pico),
                "amount_minor": str(line.amount_minor),
            }
            | _tier_in_hash(line)
            for line in rated
        ],
        "total_minor": str(total_minor),
    }
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
