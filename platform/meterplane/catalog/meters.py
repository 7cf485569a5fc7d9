"""Meters: what is counted of which events, as data. Their versions, and the product's own ones.

A version holds from its `effective_from` until the next one's and never changes, so what was
counted by it can be counted again. The first version of a meter holds from the beginning: what was
used before somebody made a meter of it can be read by it. `BUILT_IN` are what billing rates; they
are code, as its price books are made for them, and have one version for ever.

Does not know how a value is computed: `metering.meters` does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

import msgspec

from meterplane.catalog.models import Meter, MeterVersion
from meterplane.contracts.usage import SERVED
from meterplane.kernel.errors import CallerError

REQUEST = "meterplane.request"  # the type of the events the gateway makes
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)

Aggregation = Literal["sum", "count", "max", "last", "unique"]

# Of a request: what can be added up, and what it can be told apart by.
QUANTITIES = frozenset({
    "requests", "tokens_in", "tokens_out", "rows", "bytes_in", "bytes_out", "tensor_bytes_in",
    "tensor_bytes_out", "total_ms", "first_byte_ms", "queue_us", "compute_us", "retries",
})  # fmt: skip
NAMES = frozenset({
    "project", "key", "model", "surface", "status", "service_tier", "priority", "deployment",
    "region", "gpu_type", "currency", "provenance", "requested_model", "server",
})  # fmt: skip
TAG = "tags."  # and the tag's name
DATA = "data."  # and a path into an external event's data
EXTERNAL_NAMES = frozenset({"project", "source"})

Scalar = str | int | bool


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Events whose `field` is `value` (`eq`), is not (`neq`: also where it is missing), or is one
    of a list (`in`)."""

    field: str
    op: Literal["eq", "neq", "in"]
    value: Scalar | list[Scalar]


class Conversion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Multiply or divide by an exact decimal, written as text."""

    operation: Literal["multiply", "divide"]
    by: str


class Rounding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """To `digits` after the point; `half_up` is half away from zero."""

    rule: Literal["none", "ceil", "floor", "half_up"] = "none"
    digits: int = 0


class MeterDefinition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a meter counts. Checked by `meters_check.check_definition`.

    Conversion and rounding apply once, to what a query's row adds up to, and not to each event: a
    job of 0.4 s in a million would be a million whole seconds, or none.
    """

    name: str
    unit: str
    event_type: str
    aggregation: Aggregation
    field: str = ""
    filters: list[Filter] = []
    dimensions: list[str] = []
    conversion: Conversion | None = None
    rounding: Rounding = Rounding()


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a meter, and the instant the next one begins at."""

    id: UUID
    slug: str
    number: int
    effective_from: datetime
    effective_until: datetime | None
    definition: MeterDefinition
    created_at: datetime
    created_by: str


def _own(slug: str, number: int, name: str, unit: str, field: str) -> Version:
    definition = MeterDefinition(
        name=name,
        unit=unit,
        event_type=REQUEST,
        aggregation="sum",
        field=field,
        dimensions=["model", "project", "key", "service_tier", "status", *SERVED],
    )
    return Version(UUID(int=number), slug, 1, BEGINNING, None, definition, BEGINNING, "Meterplane")


BUILT_IN: Mapping[str, Version] = {
    each.slug: each
    for each in (
        _own("input_tokens", 1, "Input tokens", "token", "tokens_in"),
        _own("output_tokens", 2, "Output tokens", "token", "tokens_out"),
        _own("requests", 3, "Requests", "request", "requests"),
    )
}


def versions_of(slug: str) -> list[Version]:
    """All versions of a meter, the first one first. Raises `CallerError` 404 `meter_not_found`."""
    if slug in BUILT_IN:
        return [BUILT_IN[slug]]
    rows = list(MeterVersion.objects.filter(meter_id=slug).order_by("number"))
    if not rows:
        raise CallerError("meter_not_found", f"There is no meter {slug[:64]!r}.", status=404)
    return _read(rows)


def list_meters() -> list[list[Version]]:
    """Every meter as its versions, our own ones first, then by slug."""
    found: dict[str, list[MeterVersion]] = {slug: [] for slug in _slugs()}
    for row in MeterVersion.objects.order_by("number"):
        found[row.meter_id].append(row)
    return [[each] for each in BUILT_IN.values()] + [_read(rows) for rows in found.values()]


def at(versions: list[Version], instant: datetime) -> Version:
    """The one that holds then; before the first there is none, for it holds from the beginning."""
    return next(each for each in reversed(versions) if each.effective_from <= instant)


def _slugs() -> list[str]:
    return list(Meter.objects.order_by("slug").values_list("slug", flat=True))


def _read(rows: list[MeterVersion]) -> list[Version]:
    ends = [row.effective_from for row in rows[1:]]
    return [
        Version(
            row.id, row.meter_id, row.number, row.effective_from, until,
            msgspec.convert(row.definition, MeterDefinition), row.created_at, row.created_by,
        )
        for row, until in zip(rows, [*ends, None], strict=True)
    ]  # fmt: skip
