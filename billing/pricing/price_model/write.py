"""From a price model to JSON: one object for one model, its decimals as their one text.

Guarantees: reading it back gives an equal model, and models that are equal give the same object,
its names in the same order: it may be hashed.
"""

from billing.pricing.price_model.shapes import (
    Dynamic,
    Flat,
    Graduated,
    Package,
    PriceModel,
    Tier,
    Unit,
    Volume,
)
from meterplane.kernel.decimals import decimal_to_text


def price_model_to_json(model: PriceModel) -> dict[str, object]:
    """`{"type": ..}` with every field that has a value, also one that would go without saying."""
    return _priced(model) | _bounds(model)


def _priced(model: PriceModel) -> dict[str, object]:
    text = decimal_to_text
    match model:
        case Unit():
            return {
                "type": "unit",
                "unit_amount": text(model.unit_amount),
                "free_units": text(model.free_units),
            }
        case Flat():
            return {"type": "flat", "amount": text(model.amount)}
        case Graduated():
            return {"type": "graduated", "tiers": [_tier(each) for each in model.tiers]}
        case Volume():
            return {"type": "volume", "tiers": [_tier(each) for each in model.tiers]}
        case Package():
            return {
                "type": "package",
                "package_size": text(model.package_size),
                "package_amount": text(model.package_amount),
                "free_units": text(model.free_units),
            }
        case Dynamic():
            return {"type": "dynamic", "multiplier": text(model.multiplier)}


def _tier(tier: Tier) -> dict[str, object]:
    return {
        "up_to": None if tier.up_to is None else decimal_to_text(tier.up_to),
        "unit_amount": decimal_to_text(tier.unit_amount),
        "flat_amount": decimal_to_text(tier.flat_amount),
    }


def _bounds(model: PriceModel) -> dict[str, object]:
    found: dict[str, object] = {}
    if model.minimum_amount is not None:
        found["minimum_amount"] = decimal_to_text(model.minimum_amount)
    if model.maximum_amount is not None:
        found["maximum_amount"] = decimal_to_text(model.maximum_amount)
    if (conversion := model.unit_conversion) is not None:
        found["unit_conversion"] = {
            "divide_by": decimal_to_text(conversion.divide_by),
            "rounding": conversion.rounding,
            "decimals": conversion.decimals,
        }
    return found
