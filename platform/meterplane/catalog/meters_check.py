"""What is wrong with a meter's definition: the first fault, with its field and what to do.

Bounds keep what a meter costs to compute and a version takes to store small, whoever writes it.
"""

import re
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import msgspec

from meterplane.catalog.meters import (
    DATA,
    EXTERNAL_NAMES,
    NAMES,
    QUANTITIES,
    REQUEST,
    TAG,
    Filter,
    MeterDefinition,
)
from meterplane.catalog.sync import in_words
from meterplane.kernel.errors import CallerError

NAME_CHARS_MAX, UNIT_CHARS_MAX, TYPE_CHARS_MAX, TAG_CHARS_MAX = 80, 32, 128, 64
DIMENSIONS_MAX = 5
FILTERS_MAX = 10
FILTER_VALUES_MAX = 100
FILTER_CHARS_MAX = 256
ROUNDING_DIGITS_MAX = 12
_PATH = re.compile(r"data(\.[A-Za-z0-9_-]{1,64}){1,5}")
_EXACT = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")
_SLUG = re.compile(r"[a-z][a-z0-9_-]{0,63}")


def check_slug(slug: str) -> None:
    """Raises `CallerError` `meter_invalid`."""
    if not _SLUG.fullmatch(slug):
        raise _fault(
            "slug", f"{slug[:64]!r} is no slug: a-z, then up to 63 of a-z, 0-9, '_' and '-'."
        )


def read_definition(value: Any) -> MeterDefinition:
    """A definition from JSON, checked. Raises `CallerError` `meter_invalid` naming the field."""
    try:
        definition = msgspec.convert(value, MeterDefinition)
    except msgspec.ValidationError as wrong:
        raise _fault(None, f"{in_words(wrong)}.") from None
    check_definition(definition)
    return definition


def check_definition(it: MeterDefinition) -> None:
    """Raises `CallerError` `meter_invalid`."""
    for field, chars_max in (("name", NAME_CHARS_MAX), ("unit", UNIT_CHARS_MAX),
                             ("event_type", TYPE_CHARS_MAX)):  # fmt: skip
        text = getattr(it, field)
        if not text.strip() or len(text) > chars_max or not text.isprintable():
            raise _fault(field, f"{field} needs 1 to {chars_max} printable characters.")
    if it.event_type.startswith("meterplane.") and it.event_type != REQUEST:
        raise _fault("event_type", f"Of our own events there is {REQUEST} alone.")
    _check_field(it)
    _check_filters(it)
    if len(it.dimensions) > DIMENSIONS_MAX or len(set(it.dimensions)) < len(it.dimensions):
        raise _fault("dimensions", f"A meter has at most {DIMENSIONS_MAX} dimensions, each once.")
    for dimension in it.dimensions:
        _check_name(it, "dimensions", dimension)
    _check_conversion(it)


def _check_field(it: MeterDefinition) -> None:
    if it.aggregation == "count":
        if it.field:
            raise _fault("field", "count counts events; it has no field. Did you mean unique?")
        return
    if not it.field:
        raise _fault("field", f"{it.aggregation} needs the field it is of.")
    if it.aggregation == "unique":
        _check_name(it, "field", it.field)
    elif it.event_type != REQUEST:
        _check_path(it.field)
    elif it.field not in QUANTITIES:
        raise _fault(
            "field",
            f"A request has no quantity {it.field[:40]!r}; {it.aggregation} is of one of"
            f" {_listed(QUANTITIES)}.",
        )


def _check_name(it: MeterDefinition, field: str, name: str) -> None:
    """What events are told apart by."""
    if it.event_type != REQUEST:
        if name not in EXTERNAL_NAMES:
            _check_path(name, field)
    elif name.startswith(TAG):
        tag = name.removeprefix(TAG)
        if not 1 <= len(tag) <= TAG_CHARS_MAX or not tag.isprintable():
            raise _fault(field, f"A tag's name has 1 to {TAG_CHARS_MAX} printable characters.")
    elif name not in NAMES:
        raise _fault(
            field,
            f"Requests are not told apart by {name[:40]!r}, but by one of {_listed(NAMES)}, or"
            f" {TAG} and the name of a tag.",
        )


def _check_path(path: str, field: str = "field") -> None:
    if not _PATH.fullmatch(path):
        raise _fault(
            field,
            f"{path[:80]!r} is no path into an event: write {DATA}gpu_seconds, or up to 5 names of"
            " 1 to 64 letters, digits, '_' and '-' after one another.",
        )


def _check_filters(it: MeterDefinition) -> None:
    if len(it.filters) > FILTERS_MAX:
        raise _fault("filters", f"A meter has at most {FILTERS_MAX} filters.")
    for each in it.filters:
        _check_name(it, "filters", each.field)
        values = _values(each)
        if not 1 <= len(values) <= FILTER_VALUES_MAX:
            raise _fault("filters", f"A list in a filter has 1 to {FILTER_VALUES_MAX} values.")
        for value in values:
            if isinstance(value, str) and (
                len(value) > FILTER_CHARS_MAX or not (value.isprintable() or value == "")
            ):
                raise _fault(
                    "filters", f"A filter's text has up to {FILTER_CHARS_MAX} printable characters."
                )
            if it.event_type == REQUEST and not isinstance(value, str):
                raise _fault("filters", f"{each.field} of a request is text; so is its filter.")


def _values(each: Filter) -> list[Any]:
    if (each.op == "in") != isinstance(each.value, list):
        raise _fault("filters", "The value of in is a list; that of eq and neq is none.")
    return each.value if isinstance(each.value, list) else [each.value]


def _check_conversion(it: MeterDefinition) -> None:
    if not 0 <= it.rounding.digits <= ROUNDING_DIGITS_MAX:
        raise _fault("rounding", f"Round to 0 to {ROUNDING_DIGITS_MAX} digits after the point.")
    if it.conversion is None:
        return
    by = it.conversion.by
    if not _EXACT.fullmatch(by) or Fraction(by) == 0:
        raise _fault("conversion", 'by is a decimal above 0, as text: "3600" or "0.25".')
    # A quotient has an end only if what divides it is made of twos and fives, as ten is.
    if it.conversion.operation == "divide" and it.rounding.rule == "none":
        rest = Fraction(by).numerator
        for prime in (2, 5):
            while rest % prime == 0:
                rest //= prime
        if rest != 1:
            raise _fault(
                "rounding", f"A quotient by {by} may have no end; choose ceil, floor or half_up."
            )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _fault(field: str | None, message: str) -> CallerError:
    return CallerError("meter_invalid", message, field=field)
