"""From entries to what a request is held and shown at, and back from unit prices to entries. Pure.

A model is offered in a service tier if every meter of requests has an entry there. Its unit prices
are the highest that one more unit can have (`marginal`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from billing.pricing.book import METERS, Meter, ModelPrices
from billing.pricing.entry import Entry, EntryIndex, match_of
from billing.pricing.marginal import highest_unit_price_pico, unit_model
from meterplane.contracts.usage import ServiceTier
from meterplane.kernel.ids import uuid7


@dataclass(slots=True)
class Offer:
    """Prices by model; and of models that have some entries of a tier, those meters they lack."""

    prices: dict[str, ModelPrices] = field(default_factory=dict)
    missing: dict[tuple[str, ServiceTier], list[str]] = field(default_factory=dict)


def offer_of(entries: Iterable[Entry], models: Iterable[str]) -> Offer:
    """What the entries offer of `models`, and of those that they name."""
    priced = [entry for entry in entries if entry.meter in METERS]
    index = EntryIndex(priced)
    named = {value for entry in priced for name, value in entry.match if name == "model"}
    offer = Offer()
    for model in sorted({*models, *named}):
        standard = _tier(index, model, "standard", offer)
        batch = _tier(index, model, "batch", offer)
        if standard is not None:
            offer.prices[model] = ModelPrices(*standard, *(batch or (None, None, None)))
        elif batch is not None:
            offer.missing[model, "standard"] = [*METERS]
    return offer


def dearest(prices: Mapping[str, ModelPrices], entries: Iterable[Entry]) -> dict[str, ModelPrices]:
    """The models whose prices `entries` of a contract may be above, at the higher of both.

    Any entry that can match a request of the model counts, whatever else it matches by.
    """
    own = [entry for entry in entries if entry.meter in METERS]
    raised = {model: _raised(model, price, own) for model, price in prices.items()} if own else {}
    return {model: price for model, price in raised.items() if price != prices[model]}


def _raised(model: str, price: ModelPrices, own: Iterable[Entry]) -> ModelPrices:
    def highest(meter: Meter, tier: ServiceTier) -> int:
        usage = {"model": model, "service_tier": tier}
        picos = [
            highest_unit_price_pico(entry.price_model)
            for entry in own
            if entry.meter == meter
            and all(usage.get(name, value) == value for name, value in entry.match)
        ]
        return max([price.of(meter, tier) or 0, *picos])

    standard = [highest(meter, "standard") for meter in METERS]
    batch: list[int | None] = [None for _ in METERS]
    if price.batch_request_pico is not None:  # all three or none
        batch = [highest(meter, "batch") for meter in METERS]
    return ModelPrices(*standard, *batch)


def unit_entries(prices: Mapping[str, ModelPrices]) -> Iterator[Entry]:
    """Entries that say what the unit prices say: one for each model, meter and tier."""
    tiers: tuple[ServiceTier, ...] = ("standard", "batch")
    for model, price in sorted(prices.items()):
        for tier in tiers:
            for meter in METERS:
                pico = price.of(meter, tier)
                if pico is None:
                    continue
                name = meter.replace("_", " ")
                yield Entry(
                    id=uuid7(),
                    meter=meter,
                    match=match_of({"model": model, "service_tier": tier}),
                    price_model=unit_model(pico),
                    display_name=f"{model}: {'batch ' if tier == 'batch' else ''}{name}",
                )


def _tier(
    index: EntryIndex, model: str, tier: ServiceTier, offer: Offer
) -> tuple[int, int, int] | None:
    usage = match_of({"model": model, "service_tier": tier})
    found = {meter: index.find(meter, usage) for meter in METERS}
    missing = [meter for meter, entry in found.items() if entry is None]
    if missing:
        if len(missing) < len(METERS):
            offer.missing[model, tier] = [*missing]
        return None
    inputs, outputs, requests = (
        highest_unit_price_pico(entry.price_model) for entry in found.values() if entry is not None
    )
    return inputs, outputs, requests
