"""One rated line in words a customer can check with a pocket calculator. ASCII but for the sign."""

from decimal import Decimal

from billing.pricing.entry import Match
from billing.pricing.price_model import Package, PriceModel
from billing.rating.price import Priced, TierLine
from meterplane.contracts.usage import ServiceTier
from meterplane.kernel.decimals import decimal_to_text
from meterplane.kernel.money import minor_to_text, pico_to_text

_SIGNS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹", "KRW": "₩"}
_UNITS = {
    "input_tokens": ("input token", "input tokens"),
    "output_tokens": ("output token", "output tokens"),
    "requests": ("request", "requests"),
}
_SERVED = {"gpu_type": "on", "priority": "priority", "region": "region"}
TEXT_CHARS_MAX = 240  # of one explanation; a line's description has room for a model's name too


def explain(
    quantity: int,
    meter: str,
    unit_price_pico: int,
    amount_minor: int,
    currency: str,
    tier: ServiceTier = "standard",
    served: Match = (),
) -> str:
    """`1,204 input tokens x $0.00000015 = $0.00`; of a batch: `1,204 batch input tokens x ...`; of
    a price for a region: `1,204 input tokens (region eu-west) x ...`."""
    singular, plural = _UNITS[meter]
    unit_price = with_sign(pico_to_text(unit_price_pico), currency)
    amount = with_sign(minor_to_text(amount_minor, currency), currency)
    noun = singular if quantity == 1 else plural
    if tier != "standard":
        noun = f"{tier} {noun}"
    if served:
        noun += f" ({', '.join(f'{_SERVED.get(name, name)} {value}' for name, value in served)})"
    return f"{quantity:,} {noun} x {unit_price} = {amount}"


def explain_priced(
    meter: str, quantity: Decimal, model: PriceModel, priced: Priced, currency: str
) -> str:
    """`12 requests: 10 x $0.10 + 2 x $0.05 = $1.10`; where that is long, how many tiers it has."""
    units = _UNITS.get(meter, (meter, meter))[0 if quantity == 1 else 1]
    head = f"{quantity:,f} {units}"
    conversion = model.unit_conversion
    if conversion is not None:
        head += f" / {conversion.divide_by:,f} = {priced.quantity:,f} ({conversion.rounding})"
    amount = with_sign(minor_to_text(priced.amount_minor, currency), currency)
    parts = " + ".join(_part(each, model, currency) for each in priced.lines)
    text = f"{head}: {parts} = {amount}"
    if len(text) > TEXT_CHARS_MAX:
        text = f"{head} in {len(priced.lines)} parts = {amount}"
    return text


def explain_adjustment(text: str, before_minor: int, owed_minor: int, currency: str) -> str:
    """What is known now, less what was billed before."""
    before = with_sign(minor_to_text(before_minor, currency), currency)
    owed = with_sign(minor_to_text(owed_minor, currency), currency)
    return f"{text}; less {before} billed before = {owed}"


def _part(line: TierLine, model: PriceModel, currency: str) -> str:
    """Without its rounding: `10 x $0.10 + $5`."""

    def shown(amount: Decimal) -> str:
        return with_sign(decimal_to_text(amount), currency)

    quantity = f"{line.quantity:,f}"
    match line.kind:
        case "minimum_amount" | "maximum_amount":
            return f"{shown(line.amount)} to the {line.kind.removesuffix('_amount')}"
        case "free_units":
            return f"{quantity} free"
    if isinstance(model, Package):
        packages = line.amount / model.package_amount if model.package_amount else Decimal(0)
        size = f"{model.package_size:,f}"
        return f"{packages:,f} packages of {size} x {shown(model.package_amount)}"
    if line.unit_amount is None:
        return shown(line.flat_amount)
    text = f"{quantity} x {shown(line.unit_amount)}"
    return f"{text} + {shown(line.flat_amount)}" if line.flat_amount else text


def with_sign(text: str, currency: str) -> str:
    """A decimal text with the currency's sign, or its code, before it."""
    sign = _SIGNS.get(currency, f"{currency} ")
    return f"-{sign}{text[1:]}" if text.startswith("-") else f"{sign}{text}"
