"""From entries to what a request is held and shown at, and back from unit prices to entries. Pure.

A model is offered in a service tier if every meter of requests has an entry there, whatever the
request's priority, and also where its target says no region or GPU type. Its unit prices are the
highest that one more unit can have (`marginal`) by any entry that may win there: a request is held
before it is known which target serves it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from billing.pricing.book import LISTED, METERS, PRIORITIES, Meter, ModelPrices
from billing.pricing.entry import Entry, EntryIndex, match_of
from billing.pricing.marginal import highest_unit_price_pico, unit_model
from meterplane.contracts.usage import SERVED, ServiceTier
from meterplane.kernel.ids import uuid7


@dataclass(slots=True)
class Offer:
    """Prices by model; and of models that have some entries of a tier, what they lack: a meter, or
    `input_tokens of any other region`."""

    prices: dict[str, ModelPrices] = field(default_factory=dict)
    missing: dict[tuple[str, ServiceTier], list[str]] = field(default_factory=dict)


def offer_of(entries: Iterable[Entry], models: Iterable[str]) -> Offer:
    """What the entries offer of `models`, and of those that they name."""
    priced = [entry for entry in entries if entry.meter in METERS]
    rated = _Rated(priced)
    named = {value for entry in priced for name, value in entry.match if name == "model"}
    offer = Offer()
    for model in sorted({*models, *named}):
        standard = _tier(rated, model, "standard", offer)
        batch = _tier(rated, model, "batch", offer)
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


class _Rated:
    """Which entries may price a unit of a meter, of a model in a service tier."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        entries = list(entries)
        self._index = EntryIndex(entries)
        # Those that ask for more than model and tier, by their meter and model ("" for any).
        self._narrow: defaultdict[tuple[str, str], list[Entry]] = defaultdict(list)
        for entry in entries:
            named = dict(entry.match)
            if named.keys() - {*LISTED}:
                self._narrow[entry.meter, named.get("model", "")].append(entry)

    def of(self, meter: str, model: str, tier: ServiceTier) -> tuple[list[Entry], str]:
        """Every entry that wins for some request; and what has none, which is nothing (an empty
        text), the meter, or the meter of any other value of what its entries name.

        Fewest entries match a request whose region and GPU type are not said. So all is priced if
        those are, of every priority; and an entry wins somewhere if it wins where nothing is said
        but what it names.
        """
        asked = {"model": model, "service_tier": tier}
        narrow = [
            entry
            for entry in (*self._narrow[meter, model], *self._narrow[meter, ""])
            if dict(entry.match).get("service_tier", tier) == tier
        ]
        if not narrow:
            plain = self._index.find(meter, match_of(asked))
            return ([plain], "") if plain is not None else ([], meter)
        winners = []
        missing: set[str] = set()
        for priority in PRIORITIES:
            told = asked | {"priority": priority}
            found = self._index.find(meter, match_of(told))
            if found is not None:
                winners.append(found)
            else:
                missing |= {name for entry in narrow for name, _ in entry.match} - {*LISTED}
            winners += [
                entry
                for entry in narrow
                if self._index.find(meter, match_of(told | dict(entry.match))) is entry
            ]
        others = " or ".join(name for name in SERVED if name in missing)
        return winners, f"{meter} of any other {others}" if others else ""


def _tier(
    rated: _Rated, model: str, tier: ServiceTier, offer: Offer
) -> tuple[int, int, int] | None:
    found = {meter: rated.of(meter, model, tier) for meter in METERS}
    missing = [lacking for _, lacking in found.values() if lacking]
    if missing:
        if any(winners for winners, _ in found.values()):
            offer.missing[model, tier] = missing
        return None
    inputs, outputs, requests = (
        max(highest_unit_price_pico(entry.price_model) for entry in winners)
        for winners, _ in found.values()
    )
    return inputs, outputs, requests
