"""What must have entries, told by the parts above that post.

Invoicing, credits and payments live above the ledger and know what they owe it. Each registers its
source once, when Django starts: which kinds of entry are its own, and a page after page of what
should be there. The audit compares: what is missing, what differs, what nobody vouches for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from billing.ledger.entry import Entry
from meterplane.kernel.invariant import ensure


@dataclass(frozen=True, slots=True)
class Expected:
    """An entry that a tenant's ledger must hold."""

    tenant_id: UUID
    entry: Entry


@dataclass(frozen=True, slots=True)
class Unclear:
    """Something of a source of which nobody can say what the ledger must hold, and why."""

    tenant_id: UUID
    subject: str
    why: str


@dataclass(frozen=True, slots=True)
class Page:
    """Some of what is expected, and after which id the next page begins; None: there is none."""

    expected: tuple[Expected, ...]
    next_after: UUID | None
    unclear: tuple[Unclear, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """`kinds` are of this source alone; `page(after)` is read in the system's door.

    `name` is a word, `each` what has its entries: "every invoice, payment and write-off".
    """

    name: str
    each: str
    kinds: frozenset[str]
    page: Callable[[UUID | None], Page]


_sources: dict[str, Source] = {}


def register(source: Source) -> None:
    """Called once by each part that posts."""
    for other in _sources.values():
        ensure(
            other.name == source.name or not other.kinds & source.kinds,
            f"{other.name} and {source.name} do not post the same kind",
        )
    _sources[source.name] = source


def registered() -> tuple[Source, ...]:
    """Every source, by name."""
    return tuple(_sources[name] for name in sorted(_sources))
