"""Metered usage as quantities to rate: the one place where invoicing touches metering.

Usage of the product's own meters is pinned to the version it was admitted with. Where a contract
holds, that pin counts if it is of the contract's book; else, and where the contract keeps a version
for the tenant, the contract says which version it is. Declared meters carry no pin: what they count
is of the version that applies at the time, and only of meters that have an entry there.

How a request was served (its priority, region and GPU type) is told only of usage that an entry may
match by it: a bill without such entries is of as many rows, and the same ones, as if usage did not
carry that.

Needs the tenant's door open.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from billing.pricing.book import METERS, Meter, PublishedBook, served_by
from billing.pricing.contract import Contract
from billing.pricing.dimensions import priced_meter
from billing.pricing.entry import EntryIndex, Match, match_of
from billing.pricing.queries import DEFAULT_BOOK, Applying, prices_of, timeline_of
from billing.rating.values import Period, Quantity, month_after, month_of
from meterplane.catalog.meters import versions_of
from meterplane.contracts.usage import SERVED, Served
from meterplane.metering.counted_events import Pinned
from meterplane.metering.meters.evaluate import usage_of
from meterplane.metering.queries import UsageAggregate, usage_between

__all__ = ["UsageReader", "month_after", "month_of"]


class _Part(NamedTuple):
    """A part of a period in which one contract, or none, and one version of its book apply."""

    starts_at: datetime
    ends_at: datetime
    contract: Contract | None
    version_id: UUID | None


@dataclass(slots=True)
class UsageReader:
    """Reads periods of one tenant; what several of them need is read once.

    `instead`: versions to be read as if they were others, which says what would be counted then.
    """

    contracts: Sequence[Contract] = ()
    instead: Mapping[UUID, PublishedBook] = field(default_factory=dict)
    _books: dict[UUID, PublishedBook | None] = field(default_factory=dict)
    _timelines: dict[str, list[Applying]] = field(default_factory=dict)
    _published: dict[UUID, datetime] = field(default_factory=dict)

    def quantities_of(self, period: Period) -> list[Quantity]:
        """What was used in `period`, as far as it has arrived by now."""
        found: list[Quantity] = []
        parts = list(self._parts(period))
        for part in _joined(parts):
            found += self._requests(period, part)
        for part in parts:
            found += self._declared(period, part)
        return found

    def prices_of(self, version_id: UUID) -> PublishedBook | None:
        """A version, read once."""
        if version_id not in self._books:
            self._books[version_id] = self.instead.get(version_id) or prices_of(
                version_id, self._published.get(version_id)
            )
        return self._books[version_id]

    def prices_for(self, quantities: Iterable[Quantity]) -> dict[UUID, PublishedBook]:
        """The versions the quantities are pinned to. A missing one stays missing."""
        found = {
            version_id: self.prices_of(version_id)
            for version_id in {quantity.price_version_id for quantity in quantities}
        }
        return {version_id: book for version_id, book in found.items() if book is not None}

    def _parts(self, period: Period) -> Iterator[_Part]:
        instant = period.starts_at
        while instant < period.ends_at:
            contract = next((each for each in self.contracts if each.holds_at(instant)), None)
            ends = [period.ends_at, *(each.terms.starts_at for each in self.contracts)]
            if contract is not None:
                ends += [
                    each for each in (contract.terms.ends_at, contract.terms.pinned_until) if each
                ]
            book = contract.terms.book if contract is not None else DEFAULT_BOOK
            timeline = self._timeline(book)
            ends += [each.effective_at for each in timeline]
            until = min(end for end in ends if end > instant)
            applying = [each.version_id for each in timeline if each.effective_at <= instant]
            version_id = applying[-1] if applying else None
            if contract is not None:
                version_id = contract.terms.pinned_at(instant) or version_id
            yield _Part(instant, until, contract, version_id)
            instant = until

    def is_plain_between(self, start: datetime, end: datetime) -> bool:
        """Whether who has no contract is charged plain unit prices of our own meters all along."""
        timeline = self._timeline(DEFAULT_BOOK)
        before = [each for each in timeline if each.effective_at <= start][-1:]
        within = [each for each in timeline if start < each.effective_at < end]
        books = [self.prices_of(each.version_id) for each in (*before, *within)]
        return all(book is not None and book.is_plain for book in books)

    def _timeline(self, book: str) -> list[Applying]:
        if book not in self._timelines:
            self._timelines[book] = timeline_of(book)
            self._published |= {e.version_id: e.published_at for e in self._timelines[book]}
        return self._timelines[book]

    def pinned_in(self, period: Period) -> Iterator[tuple[Quantity, Pinned]]:
        """What was used of the product's own meters, each quantity with the events it is of."""
        for part in _joined(list(self._parts(period))):
            for aggregate, quantity in self._told(period, part):
                yield (
                    quantity,
                    Pinned(
                        part.starts_at,
                        part.ends_at,
                        aggregate.model,
                        aggregate.service_tier,
                        aggregate.price_version_id,
                        tuple(told for told in quantity.dimensions or () if told[0] in SERVED),
                    ),
                )

    def _requests(self, period: Period, part: _Part) -> Iterator[Quantity]:
        for _, quantity in self._told(period, part):
            yield quantity

    def _told(self, period: Period, part: _Part) -> Iterator[tuple[UsageAggregate, Quantity]]:
        for aggregate, dimensions in self._aggregates(part):
            version_id = self._version_of(aggregate.price_version_id, part)
            for meter, units in _meters(aggregate):
                quantity = Quantity(
                    period,
                    aggregate.model,
                    meter,
                    version_id,
                    units,
                    aggregate.service_tier,
                    part.contract.id if part.contract is not None else None,
                    dimensions,
                )
                yield aggregate, quantity

    def _aggregates(self, part: _Part) -> Iterator[tuple[UsageAggregate, Match | None]]:
        """Sums, and what their quantities are matched by. Those of one pinned version are of one
        read: what arrives between two of them is not counted twice."""
        matched_by: dict[UUID, frozenset[Served]] = {}
        for aggregate in usage_between(part.starts_at, part.ends_at):
            pinned_id = aggregate.price_version_id
            if pinned_id not in matched_by:
                matched_by[pinned_id] = self._served(pinned_id, part)
            if not matched_by[pinned_id]:
                yield aggregate, None
        names = tuple(name for name in SERVED if any(name in each for each in matched_by.values()))
        if not names:
            return
        for aggregate in usage_between(part.starts_at, part.ends_at, names):
            if matched_by.get(aggregate.price_version_id):
                told = {"model": aggregate.model, "service_tier": aggregate.service_tier}
                told |= dict(zip(names, aggregate.served, strict=True))
                yield aggregate, match_of(told)

    def _served(self, pinned_id: UUID, part: _Part) -> frozenset[Served]:
        """What of how they were served requests pinned to a version may be matched by."""
        book = self.prices_of(self._version_of(pinned_id, part))
        found = book.served if book is not None else frozenset()
        if part.contract is not None:
            found |= served_by(EntryIndex(part.contract.terms.entries))
        return found

    def _version_of(self, pinned_id: UUID, part: _Part) -> UUID:
        if part.contract is None or part.version_id is None:
            return pinned_id
        if part.contract.terms.pinned_at(part.starts_at) is None:
            pinned = self.prices_of(pinned_id)
            if pinned is not None and pinned.book == part.contract.terms.book:
                return pinned_id
        return part.version_id

    def _declared(self, period: Period, part: _Part) -> Iterator[Quantity]:
        if part.version_id is None:
            return
        book = self.prices_of(part.version_id)
        own = part.contract.terms.entries if part.contract is not None else ()
        priced: dict[str, set[str]] = {}
        for entry in (*(book.entries if book is not None else ()), *own):
            if entry.meter not in METERS:
                priced.setdefault(entry.meter, set()).update(name for name, _ in entry.match)
        for slug, names in sorted(priced.items()):
            yield from self._counted(period, part, slug, sorted(names))

    def _counted(
        self, period: Period, part: _Part, slug: str, names: Sequence[str]
    ) -> Iterator[Quantity]:
        meter = priced_meter(slug, part.starts_at, "meter")
        asked = [meter.dimensions[name] for name in names]
        used = usage_of(versions_of(slug), part.starts_at, part.ends_at, dimensions=asked)
        for row in used.rows:
            told = {name: row.group[meter.dimensions[name]] or "" for name in names}
            yield Quantity(
                period,
                told.get("model", ""),
                slug,
                part.version_id or UUID(int=0),
                Decimal(row.value),
                contract_id=part.contract.id if part.contract is not None else None,
                dimensions=match_of(told),
            )


def _joined(parts: Sequence[_Part]) -> list[_Part]:
    """Without contracts the version at a time does not matter: one read for the whole period."""
    joined: list[_Part] = []
    for part in parts:
        if joined and joined[-1].contract is None and part.contract is None:
            joined[-1] = joined[-1]._replace(ends_at=part.ends_at)
        else:
            joined.append(part)
    return joined


def _meters(aggregate: UsageAggregate) -> list[tuple[Meter, int]]:
    return [
        ("input_tokens", aggregate.tokens_in),
        ("output_tokens", aggregate.tokens_out),
        ("requests", aggregate.requests),
    ]
