"""One rated line in words a customer can check with a pocket calculator. ASCII but for the sign."""

from meterplane.contracts.usage import ServiceTier
from meterplane.kernel.money import minor_to_text, pico_to_text

_SIGNS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹", "KRW": "₩"}
_UNITS = {
    "input_tokens": ("input token", "input tokens"),
    "output_tokens": ("output token", "output tokens"),
    "requests": ("request", "requests"),
}


def explain(
    quantity: int,
    meter: str,
    unit_price_pico: int,
    amount_minor: int,
    currency: str,
    tier: ServiceTier = "standard",
) -> str:
    """`1,204 input tokens x $0.00000015 = $0.00`; of a batch: `1,204 batch input tokens x ...`."""
    singular, plural = _UNITS[meter]
    unit_price = _with_sign(pico_to_text(unit_price_pico), currency)
    amount = _with_sign(minor_to_text(amount_minor, currency), currency)
    noun = singular if quantity == 1 else plural
    if tier != "standard":
        noun = f"{tier} {noun}"
    return f"{quantity:,} {noun} x {unit_price} = {amount}"


def _with_sign(text: str, currency: str) -> str:
    sign = _SIGNS.get(currency, f"{currency} ")
    return f"-{sign}{text[1:]}" if text.startswith("-") else f"{sign}{text}"
