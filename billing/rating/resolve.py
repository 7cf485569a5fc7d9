"""Which price a quantity is rated at. Pure.

The entry that wins among those of the contract and of the version it is pinned to (`entry`); a
version of before there were entries has unit prices by model, meter and tier, which count as
entries that name both dimensions. A quantity that does not say how it was served is of normal
priority, of no region and of no GPU type.

Guarantees: each distinct quantity is looked up once. What has no price is refused, never free.
"""

from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from billing.pricing.book import LISTED, PublishedBook
from billing.pricing.contract import Contract
from billing.pricing.entry import Entry, EntryIndex, Match, winner
from billing.rating.values import METERS, Quantity, UsageCannotBeRated
from meterplane.contracts.usage import ServiceTier


class Resolved(NamedTuple):
    """The entry (None in a version without entries), and its unit price if that is all it says."""

    entry: Entry | None
    unit_price_pico: int | None


_Asked = tuple[UUID, UUID | None, str, str, ServiceTier, Match | None]


class Resolver:
    """Look-ups in one set of versions and contracts, all in one currency."""

    def __init__(
        self,
        prices: Mapping[UUID, PublishedBook],
        contracts: Mapping[UUID, Contract],
        currency: str,
    ) -> None:
        self._prices = prices
        self._currency = currency
        self._own = {each.id: EntryIndex(each.terms.entries) for each in contracts.values()}
        self._known: dict[_Asked, Resolved] = {}

    def of(self, quantity: Quantity) -> Resolved:
        """Raises `UsageCannotBeRated` for what has no price here."""
        asked = (
            quantity.price_version_id,
            quantity.contract_id,
            quantity.meter,
            quantity.model,
            quantity.service_tier,
            quantity.dimensions,
        )
        found = self._known.get(asked)
        if found is None:
            found = self._known[asked] = self._resolve(quantity)
        return found

    def _resolve(self, quantity: Quantity) -> Resolved:
        version = self._version(quantity)
        dimensions = quantity.dimensions
        if dimensions is None:
            dimensions = (
                ("model", quantity.model),
                ("priority", "normal"),
                ("service_tier", quantity.service_tier),
            )
        own = None
        if quantity.contract_id is not None:
            own = self._own[quantity.contract_id].find(quantity.meter, dimensions)
        if not version.entries and quantity.meter in METERS:
            listed = _listed(version, quantity)
            if own is not None and (listed is None or own.specificity >= len(LISTED)):
                return self._entry(own, version, quantity)
            if listed is None:
                raise _refused(quantity, _what_is_missing(version, quantity))
            return Resolved(None, listed)
        entry = winner(own, version.index.find(quantity.meter, dimensions))
        if entry is None:
            raise _refused(quantity, _what_is_missing(version, quantity))
        return self._entry(entry, version, quantity)

    def _entry(self, entry: Entry, version: PublishedBook, quantity: Quantity) -> Resolved:
        if quantity.meter not in METERS:
            return Resolved(entry, None)
        index = version.index if entry.contract_id is None else self._own[entry.contract_id]
        return Resolved(entry, index.unit_price_pico(entry))

    def _version(self, quantity: Quantity) -> PublishedBook:
        version = self._prices.get(quantity.price_version_id)
        if version is None:
            raise _refused(quantity, "there is no such price version")
        if version.currency != self._currency:
            raise _refused(quantity, f"priced in {version.currency}, billed in {self._currency}")
        return version


def _listed(version: PublishedBook, quantity: Quantity) -> int | None:
    prices = version.prices.get(quantity.model)
    if prices is None:
        return None
    meter = next(each for each in METERS if each == quantity.meter)
    return prices.of(meter, quantity.service_tier)


def _what_is_missing(version: PublishedBook, quantity: Quantity) -> str:
    prices = version.prices.get(quantity.model)
    if prices is None:
        return "the version has no price for this model"
    if prices.of("requests", quantity.service_tier) is None:
        return f"the version has no {quantity.service_tier} prices for this model"
    return "no entry of the version matches it"


def _refused(quantity: Quantity, why: str) -> UsageCannotBeRated:
    return UsageCannotBeRated(
        f"{quantity.units} {quantity.service_tier} {quantity.meter} of {quantity.model} at price"
        f" version {quantity.price_version_id}: {why}"
    )
