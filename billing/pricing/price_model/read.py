"""From decoded JSON to a price model.

Guarantees: what comes back can be priced at any quantity. Refused with the path of the field are
JSON floats, unknown fields, negative amounts, tiers that do not ascend or of which not exactly the
last is open, and a minimum above the maximum.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, TypedDict, cast

from billing.pricing.exact_fields import (
    FieldInvalid,
    Fields,
    read_amount,
    read_choice,
    read_list,
    read_positive,
    read_whole,
)
from billing.pricing.price_model.shapes import (
    Dynamic,
    Flat,
    Graduated,
    Package,
    PriceModel,
    Rounding,
    Tier,
    Unit,
    UnitConversion,
    Volume,
)
from meterplane.kernel.decimals import FRACTION_DIGITS_MAX, ZERO, decimal_to_text
from meterplane.kernel.errors import CallerError

TIERS_MAX = 1_000

_BOUNDS = frozenset({"type", "minimum_amount", "maximum_amount", "unit_conversion"})
_TIER = frozenset({"up_to", "unit_amount", "flat_amount"})
_CONVERSION = frozenset({"divide_by", "rounding", "decimals"})


class _Bounds(TypedDict):
    minimum_amount: Decimal | None
    maximum_amount: Decimal | None
    unit_conversion: UnitConversion | None


def read_price_model(value: object, path: str = "model") -> PriceModel:
    """The model. Raises `CallerError` `price_model_invalid`, its field such as
    `model.tiers[1].up_to`; `path` is what the model itself is called there.
    """
    try:
        return _model(value, path)
    except FieldInvalid as wrong:
        raise CallerError(
            "price_model_invalid", wrong.message, status=422, field=wrong.field
        ) from None


def _model(value: object, path: str) -> PriceModel:
    named = value.get("type") if isinstance(value, dict) else None
    if not isinstance(named, str) or named not in _READERS:
        if not isinstance(value, dict):
            Fields(value, path, frozenset())  # says why it is no object
        what = "is missing" if named is None else "is not known here"
        raise FieldInvalid(f"{path}.type", f"{what}; there are {', '.join(_READERS)}")
    allowed, read = _READERS[named]
    fields = Fields(value, path, allowed)
    return read(fields)


def _bounds(fields: Fields) -> _Bounds:
    minimum = fields.get_or("minimum_amount", read_amount, None)
    maximum = fields.get_or("maximum_amount", read_amount, None)
    if minimum is not None and maximum is not None and minimum > maximum:
        raise FieldInvalid(
            fields.path("minimum_amount"),
            f"({decimal_to_text(minimum)}) is above the maximum ({decimal_to_text(maximum)})",
        )
    return {
        "minimum_amount": minimum,
        "maximum_amount": maximum,
        "unit_conversion": fields.get_or("unit_conversion", _conversion, None),
    }


def _conversion(value: object, path: str) -> UnitConversion:
    fields = Fields(value, path, _CONVERSION)
    return UnitConversion(
        divide_by=fields.get("divide_by", read_positive),
        rounding=cast("Rounding", fields.get("rounding", _rounding)),
        decimals=fields.get_or("decimals", _decimals, 0),
    )


def _tiers(value: object, path: str) -> tuple[Tier, ...]:
    sent = read_list(value, path)
    if not 0 < len(sent) <= TIERS_MAX:
        raise FieldInvalid(path, f"must hold 1 to {TIERS_MAX} tiers, and holds {len(sent)}")
    tiers: list[Tier] = []
    below = ZERO
    for number, each in enumerate(sent):
        fields = Fields(each, f"{path}[{number}]", _TIER)
        tier = _tier(fields, below, is_last=number == len(sent) - 1)
        tiers.append(tier)
        below = tier.up_to or below
    return tuple(tiers)


def _tier(fields: Fields, below: Decimal, *, is_last: bool) -> Tier:
    up_to = fields.get("up_to", _up_to)
    if is_last and up_to is not None:
        raise FieldInvalid(fields.path("up_to"), "must be null: the last tier has no end")
    if not is_last and up_to is None:
        raise FieldInvalid(fields.path("up_to"), "is null, but only the last tier has no end")
    if up_to is not None and up_to <= below:
        raise FieldInvalid(
            fields.path("up_to"),
            f"must be above {decimal_to_text(below)}, where this tier begins",
        )
    if "unit_amount" not in fields and "flat_amount" not in fields:
        raise FieldInvalid(fields.path("unit_amount"), "is missing, and so is flat_amount")
    return Tier(
        up_to,
        fields.get_or("unit_amount", read_amount, ZERO),
        fields.get_or("flat_amount", read_amount, ZERO),
    )


def _up_to(value: object, path: str) -> Decimal | None:
    return None if value is None else read_positive(value, path)


def _unit(fields: Fields) -> Unit:
    return Unit(
        fields.get("unit_amount", read_amount),
        fields.get_or("free_units", read_amount, ZERO),
        **_bounds(fields),
    )


def _flat(fields: Fields) -> Flat:
    return Flat(fields.get("amount", read_amount), **_bounds(fields))


def _graduated(fields: Fields) -> Graduated:
    return Graduated(fields.get("tiers", _tiers), **_bounds(fields))


def _volume(fields: Fields) -> Volume:
    return Volume(fields.get("tiers", _tiers), **_bounds(fields))


def _package(fields: Fields) -> Package:
    return Package(
        fields.get("package_size", read_positive),
        fields.get("package_amount", read_amount),
        fields.get_or("free_units", read_amount, ZERO),
        **_bounds(fields),
    )


def _dynamic(fields: Fields) -> Dynamic:
    return Dynamic(fields.get("multiplier", read_amount), **_bounds(fields))


_rounding = read_choice("ceil", "floor", "half_up")
_decimals = read_whole(0, FRACTION_DIGITS_MAX)
_READERS: dict[str, tuple[frozenset[str], Callable[[Fields], Any]]] = {
    "unit": (_BOUNDS | {"unit_amount", "free_units"}, _unit),
    "flat": (_BOUNDS | {"amount"}, _flat),
    "graduated": (_BOUNDS | {"tiers"}, _graduated),
    "volume": (_BOUNDS | {"tiers"}, _volume),
    "package": (_BOUNDS | {"package_size", "package_amount", "free_units"}, _package),
    "dynamic": (_BOUNDS | {"multiplier"}, _dynamic),
}
