"""What is wrong with a model of the catalog, each fault with its field and what to do about it.

One check for a catalog file and for the console's form. A fault is a value: whoever asked decides
whether to raise it or to show it beside the field. What only one model says is checked in
`check_serving.py` and here; what it says about others (fallbacks) needs the whole catalog.
"""

import re
from collections.abc import Iterator, Mapping

from meterplane.catalog.check_serving import serving_faults
from meterplane.catalog.entry import CatalogEntry
from meterplane.catalog.fault import Fault
from meterplane.catalog.surfaces import surface_of

FALLBACKS_MAX = 3  # each is one more server a caller waits for: a request asks 4 models at most
NAME_CHARS_MAX, DISPLAY_NAME_CHARS_MAX = 80, 120  # as their columns
TOKENS_MAX = 2**31 - 1  # PostgreSQL's integer
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TOKEN_FIELDS = ("context_tokens_max", "output_tokens_max", "output_tokens_default")


def faults_of(entry: CatalogEntry, catalog: Mapping[str, CatalogEntry]) -> list[Fault]:
    """Everything wrong with `entry`, in a fixed order; `catalog` holds all models, it among them.

    Empty: it can be stored and served.
    """
    return [*_offer_faults(entry), *serving_faults(entry), *_fallback_faults(entry, catalog)]


def _offer_faults(entry: CatalogEntry) -> Iterator[Fault]:
    for field, chars_max in (("name", NAME_CHARS_MAX), ("display_name", DISPLAY_NAME_CHARS_MAX)):
        text = getattr(entry, field)
        if not text.strip() or len(text) > chars_max:
            yield entry.fault(field, f"is empty or longer than {chars_max} characters")
    if entry.name and not _NAME.fullmatch(entry.name):
        yield entry.fault(
            "name",
            f"{entry.name!r} cannot be part of an address; use letters, digits, '.', '_' and '-',"
            " starting with a letter or digit",
        )
    for field in _TOKEN_FIELDS:
        if not 0 <= getattr(entry, field) <= TOKENS_MAX:
            yield entry.fault(field, f"is {getattr(entry, field)}; state 0 to {TOKENS_MAX:,}")
    if entry.output_tokens_default > entry.output_tokens_max:
        yield entry.fault(
            "output_tokens_default",
            f"is {entry.output_tokens_default}, above output_tokens_max, which is"
            f" {entry.output_tokens_max}; lower it",
        )
    if entry.reserve == "history" and entry.output_tokens_max == 0:
        yield entry.fault(
            "reserve", "is history, but the model writes no text whose length could be learned"
        )
    if "\0" in entry.display_name + entry.description:
        yield entry.fault("description", "holds a NUL character; remove it")


def _fallback_faults(entry: CatalogEntry, catalog: Mapping[str, CatalogEntry]) -> Iterator[Fault]:
    if len(entry.fallbacks) > FALLBACKS_MAX:
        yield entry.fault(
            "fallbacks", f"names {len(entry.fallbacks)} models; {FALLBACKS_MAX} are asked at most"
        )
    surface = surface_of(entry)
    for name in entry.fallbacks:
        if entry.fallbacks.count(name) > 1:
            yield entry.fault("fallbacks", f"names {name!r} twice; name it once")
            return
        other = catalog.get(name)
        if other is None:
            yield entry.fault(
                "fallbacks", f"{name!r} is not in the catalog; add it first, or correct the name"
            )
        elif (theirs := surface_of(other)) != surface:
            yield entry.fault(
                "fallbacks",
                f"{name!r} is a model for {theirs}, this one is for {surface}: it could not"
                " answer the same call; name one of the same kind",
            )
    if circle := _circle(entry, catalog):
        yield entry.fault(
            "fallbacks",
            f"lead back to the model itself ({' > '.join(circle)}); take one of these out",
        )
    yield from _left_behind(entry, catalog)


def _circle(entry: CatalogEntry, catalog: Mapping[str, CatalogEntry]) -> list[str]:
    """A way from a model over fallbacks back to it; empty when there is none."""
    seen: set[str] = set()
    ways = [[entry.name, name] for name in reversed(entry.fallbacks)]
    while ways:
        way = ways.pop()
        if way[-1] == entry.name:
            return way
        if way[-1] in seen or way[-1] not in catalog:
            continue
        seen.add(way[-1])
        ways += [[*way, name] for name in reversed(catalog[way[-1]].fallbacks)]
    return []


def _left_behind(entry: CatalogEntry, catalog: Mapping[str, CatalogEntry]) -> Iterator[Fault]:
    """A change of adapter must not make the model useless to those that fall back to it."""
    surface = surface_of(entry)
    for other in catalog.values():
        theirs = surface_of(other)
        if entry.name in other.fallbacks and other.name != entry.name and theirs != surface:
            yield entry.fault(
                "adapter",
                f"makes this a model for {surface}, but {other.name!r}, a model for {theirs},"
                " falls back to it; take it out of that model's fallbacks first",
            )
