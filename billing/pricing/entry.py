"""Entries of a price book or a contract, and which of them a quantity is priced by. Pure.

An entry is a meter, a match and a price model. A quantity is told apart by dimensions, such as its
model and service tier; an entry matches it if every dimension it names has that value there. Of
all that match, the most specific one wins: the one that names most dimensions. An entry of a
contract wins over one of the book that names as many dimensions or fewer.

Guarantees: in entries that `ambiguous` finds nothing in, every quantity has at most one winner.
`EntryIndex.find` costs one look-up for each set of dimensions that entries of a meter name, once
for each distinct quantity.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple
from uuid import UUID

from billing.pricing.marginal import plain_unit_price_pico
from billing.pricing.price_model import PriceModel
from meterplane.contracts.usage import SERVED

Match = tuple[tuple[str, str], ...]  # (dimension, value), by dimension
FOUND_MAX = 10_000  # 800 models x 3 meters x 2 tiers, twice; what tells usage apart more is any


@dataclass(frozen=True, slots=True)
class Entry:
    """One price. `contract_id` is of a contract's own entry, None of a book's."""

    id: UUID
    meter: str
    match: Match
    price_model: PriceModel
    display_name: str
    contract_id: UUID | None = None

    @property
    def specificity(self) -> int:
        """How many dimensions it names."""
        return len(self.match)

    @property
    def served(self) -> Match:
        """What of its match is how a request was served."""
        return tuple(each for each in self.match if each[0] in SERVED)

    def __str__(self) -> str:
        return f"{self.meter} of {match_in_words(self.match)}"


class Ambiguity(NamedTuple):
    """Two entries that win equally for usage that is `overlap`."""

    one: Entry
    other: Entry
    overlap: Match


class EntryIndex:
    """The entries of one version or contract, by what they match."""

    __slots__ = ("_by_meter", "_found", "_plain")

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._by_meter: dict[str, dict[tuple[str, ...], dict[tuple[str, ...], Entry]]] = {}
        for entry in sorted(entries, key=lambda each: -each.specificity):
            names = tuple(name for name, _ in entry.match)
            values = tuple(value for _, value in entry.match)
            self._by_meter.setdefault(entry.meter, {}).setdefault(names, {})[values] = entry
        self._found: dict[tuple[str, Match], Entry | None] = {}
        self._plain: dict[UUID, int | None] = {}

    def find(self, meter: str, dimensions: Match) -> Entry | None:
        """The most specific entry that matches; None if none does."""
        key = (meter, dimensions)
        try:
            return self._found[key]
        except KeyError:
            if len(self._found) >= FOUND_MAX:
                self._found.clear()
            found = self._found[key] = self._search(meter, dict(dimensions))
            return found

    def names_of(self, meter: str) -> set[str]:
        """The dimensions that entries of a meter name."""
        return {name for names in self._by_meter.get(meter, {}) for name in names}

    def unit_price_pico(self, entry: Entry) -> int | None:
        """Of one of its entries: the price of each unit, if that is all it says."""
        try:
            return self._plain[entry.id]
        except KeyError:
            plain = self._plain[entry.id] = plain_unit_price_pico(entry.price_model)
            return plain

    def _search(self, meter: str, dimensions: Mapping[str, str]) -> Entry | None:
        for names, entries in self._by_meter.get(meter, {}).items():  # the most specific first
            found = entries.get(tuple(dimensions.get(name, "") for name in names))
            if found is not None:
                return found
        return None


def winner(own: Entry | None, book: Entry | None) -> Entry | None:
    """The contract's `own` entry, unless the book's is more specific."""
    if own is None or (book is not None and book.specificity > own.specificity):
        return book
    return own


def ambiguous(entries: Sequence[Entry]) -> list[Ambiguity]:
    """Every pair of entries that could win equally for some usage.

    Two that name as many dimensions, none of them with different values, overlap; that is settled
    where a more specific third entry matches all usage they share.
    """
    found = []
    by_meter: dict[str, list[Entry]] = {}
    for entry in entries:
        by_meter.setdefault(entry.meter, []).append(entry)
    for of_meter in by_meter.values():
        by_size: dict[int, list[Entry]] = {}
        for entry in of_meter:
            by_size.setdefault(entry.specificity, []).append(entry)
        for size, alike in by_size.items():
            for one, other in combinations(alike, 2):
                overlap = _overlap(one.match, other.match)
                if overlap is not None and not _settled(of_meter, size, overlap):
                    found.append(Ambiguity(one, other, overlap))
    return found


def match_of(dimensions: Mapping[str, str]) -> Match:
    """The one form of a match: by dimension."""
    return tuple(sorted(dimensions.items()))


def match_in_words(match: Match) -> str:
    """`model=tiny-lm, service_tier=batch`; `everything`."""
    return ", ".join(f"{name}={value}" for name, value in match) or "everything"


def _overlap(one: Match, other: Match) -> Match | None:
    both = dict(one)
    for name, value in other:
        if both.setdefault(name, value) != value:
            return None
    return match_of(both)


def _settled(entries: Sequence[Entry], size: int, overlap: Match) -> bool:
    return any(each.specificity > size and {*each.match} <= {*overlap} for each in entries)
