"""What entries may price: the meters, and the dimensions usage of each is told apart by.

This is the one place that says so, with `book.DIMENSIONS`, and it is honest: a dimension that usage
does not carry cannot be matched, so it is refused here and not silently never met. Of the product's
own meters usage is summed by model, service tier, priority, and the region and GPU type of the
target that served. Of a target that the catalog does not place the last two are empty, which no
entry can name: its usage is priced by an entry that leaves them out. A declared meter brings its
own dimensions, such as the region or the GPU type that external events carry: `region` means its
dimension `region`, `data.region` or `tags.region`, whichever it declares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from billing.pricing.book import DIMENSIONS, PRIORITIES, SERVICE_TIERS
from meterplane.catalog.check_serving import is_place
from meterplane.catalog.meters import BUILT_IN, DATA, REQUEST, TAG, MeterDefinition, versions_of
from meterplane.kernel.errors import CallerError
from meterplane.metering.meters.sources import is_rolled_up

TOKENS = "tokens"
# Tokens of each kind are a meter of their own.
TOKEN_METERS: Mapping[str, str] = {"input": "input_tokens", "output": "output_tokens"}
_NOT_CARRIED = {"token_kind": "requests are not tokens"}
_KNOWN_VALUES: Mapping[str, tuple[tuple[str, ...], str]] = {
    "service_tier": (SERVICE_TIERS, "service tier"),
    "priority": (PRIORITIES, "priority"),
}
_ADDITIVE = frozenset({"sum", "count"})


@dataclass(frozen=True, slots=True)
class PricedMeter:
    """What can be priced by: how its dimensions are called by entries, and by the meter."""

    slug: str
    name: str
    unit: str
    dimensions: Mapping[str, str]


def by_token_kind(slug: str, match: Mapping[str, str], field: str) -> tuple[str, Mapping[str, str]]:
    """`tokens` matched by `token_kind` is the meter of that kind, which may be matched by it too.

    A declared meter that is called so keeps its own dimensions. Raises `CallerError` for a kind
    that is not counted, naming `field`.
    """
    kind = match.get("token_kind")
    if kind is None or slug not in (TOKENS, *TOKEN_METERS.values()) or _is_declared(slug):
        return slug, match
    if kind not in TOKEN_METERS or slug not in (TOKENS, TOKEN_METERS[kind]):
        raise CallerError(
            "dimension_value_unknown",
            f"{kind[:80]!r} is no kind of {slug}; it is {' or '.join(TOKEN_METERS)}, which"
            f" {' and '.join(TOKEN_METERS.values())} count.",
            status=422,
            field=f"{field}.token_kind",
        )
    return TOKEN_METERS[kind], {
        name: value for name, value in match.items() if name != "token_kind"
    }


def _is_declared(slug: str) -> bool:
    try:
        return slug not in BUILT_IN and bool(versions_of(slug))
    except CallerError:
        return False


def priced_meter(slug: str, at: datetime, field: str) -> PricedMeter:
    """The meter as entries see it. Raises `CallerError` `meter_unknown` naming `field`."""
    if slug in BUILT_IN:
        it = BUILT_IN[slug].definition
        return PricedMeter(slug, it.name, it.unit, {name: name for name in DIMENSIONS})
    try:
        versions = versions_of(slug)
    except CallerError:
        raise CallerError(
            "meter_unknown",
            f"There is no meter {slug[:64]!r}. It is one of {', '.join(BUILT_IN)}, or declared by"
            " POST /api/v1/meters.",
            status=422,
            field=field,
        ) from None
    newest = next((v for v in reversed(versions) if v.effective_from <= at), versions[-1])
    it = newest.definition
    return PricedMeter(slug, it.name, it.unit, {_short(name): name for name in it.dimensions})


def check_match(meter: PricedMeter, match: Mapping[str, str], at: datetime, field: str) -> None:
    """Raises `CallerError` for a dimension the meter's usage does not carry, or a value it cannot
    have."""
    for name in match:
        if name in meter.dimensions:
            continue
        known = ", ".join(sorted(meter.dimensions)) or "none"
        why = "" if meter.slug not in BUILT_IN else _NOT_CARRIED.get(name, "")
        raise CallerError(
            "dimension_unknown",
            f"Usage of {meter.slug} cannot be matched by {name[:80]!r}"
            f"{f' ({why})' if why else ''}; it carries {known}.",
            status=422,
            field=f"{field}.{name[:80]}",
        )
    if meter.slug in BUILT_IN:
        _check_values(match, field)
    else:
        _check_declared(meter, [meter.dimensions[name] for name in match], field)


def _check_values(match: Mapping[str, str], field: str) -> None:
    """What no usage of the product's own meters can say is not silently never met."""
    for name, value in match.items():
        known, noun = _KNOWN_VALUES.get(name, ((), ""))
        if known and value not in known:
            problem = f"{value[:80]!r} is no {noun}; it is one of {', '.join(known)}."
        elif name in ("region", "gpu_type") and not is_place(value):
            problem = f"No target of the catalog can have {value[:80]!r} as its {name}."
        else:
            continue
        raise CallerError("dimension_value_unknown", problem, status=422, field=f"{field}.{name}")


def _check_declared(meter: PricedMeter, dimensions: Sequence[str], field: str) -> None:
    """A closed period is counted again whenever something arrives late: for years, and in parts."""
    for version in versions_of(meter.slug):
        it = version.definition
        if it.event_type == REQUEST and not is_rolled_up(it, dimensions):
            raise CallerError(
                "meter_not_kept",
                f"Version {version.number} of {meter.slug} counts from single requests, which are"
                " not kept for ever: price a sum or count of what roll-ups have.",
                status=422,
                field=field,
            )
        if dimensions and not _divides(it):
            raise CallerError(
                "meter_not_divisible",
                f"Parts of {meter.slug} do not add up to the whole"
                f" ({it.aggregation}, rounding {it.rounding.rule}): price it without a match.",
                status=422,
                field=field,
            )


def _divides(it: MeterDefinition) -> bool:
    return it.aggregation in _ADDITIVE and it.rounding.rule == "none"


def _short(name: str) -> str:
    return name.removeprefix(DATA).removeprefix(TAG)
