"""How a quantity becomes an amount: six kinds of price, as checked values and as JSON.

The same JSON stands in price books, contracts, the API, the admin's editor and the calculator.
What has been read once (`read`) needs no second look; `write` is the one text of a model.
"""

from billing.pricing.price_model.read import TIERS_MAX, read_price_model
from billing.pricing.price_model.shapes import (
    Dynamic,
    Flat,
    Graduated,
    Package,
    PriceModel,
    Tier,
    Unit,
    UnitConversion,
    Volume,
)
from billing.pricing.price_model.write import price_model_to_json

__all__ = [
    "TIERS_MAX",
    "Dynamic",
    "Flat",
    "Graduated",
    "Package",
    "PriceModel",
    "Tier",
    "Unit",
    "UnitConversion",
    "Volume",
    "price_model_to_json",
    "read_price_model",
]
