"""A heap whose entries may change their rank or leave: each operation O(log n).

Guarantees: the first has the least rank; of equal ranks, the one that was given its rank first.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)
_Entry = tuple[int, int, T]


class Ranking(Generic[T]):
    """Things by rank."""

    __slots__ = ("_entries", "_number", "_places")

    def __init__(self) -> None:
        self._entries: list[_Entry[T]] = []
        self._places: dict[T, int] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, thing: T, rank: int) -> None:
        """Add something, or give it another rank."""
        self._number += 1
        entry = (rank, self._number, thing)
        place = self._places.get(thing)
        if place is None:
            self._entries.append(entry)
            self._rise(len(self._entries) - 1, entry)
        else:
            self._move(place, entry)

    def discard(self, thing: T) -> None:
        """Take something out, if it is there."""
        place = self._places.pop(thing, None)
        if place is None:
            return
        last = self._entries.pop()
        if place < len(self._entries):
            self._move(place, last)

    def first(self) -> tuple[int, T]:
        """The least rank and whose it is; there is one."""
        rank, _, thing = self._entries[0]
        return rank, thing

    def clear(self) -> None:
        """Take everything out."""
        self._entries.clear()
        self._places.clear()

    def _move(self, place: int, entry: _Entry[T]) -> None:
        if place and _before(entry, self._entries[(place - 1) // 2]):
            self._rise(place, entry)
        else:
            self._sink(place, entry)

    def _rise(self, place: int, entry: _Entry[T]) -> None:
        while place:
            above = (place - 1) // 2
            if not _before(entry, self._entries[above]):
                break
            self._set(place, self._entries[above])
            place = above
        self._set(place, entry)

    def _sink(self, place: int, entry: _Entry[T]) -> None:
        size = len(self._entries)
        while (below := 2 * place + 1) < size:
            right = below + 1
            if right < size and _before(self._entries[right], self._entries[below]):
                below = right
            if not _before(self._entries[below], entry):
                break
            self._set(place, self._entries[below])
            place = below
        self._set(place, entry)

    def _set(self, place: int, entry: _Entry[T]) -> None:
        self._entries[place] = entry
        self._places[entry[2]] = place


def _before(one: _Entry[T], other: _Entry[T]) -> bool:
    return one[:2] < other[:2]
