"""What limits and their scopes are called where people read and choose them."""

from meterplane.contracts import policy as contract
from meterplane.kernel import amounts, money

KINDS = {
    "requests": "Requests", "input_tokens": "Input tokens", "output_tokens": "Output tokens",
    "total_tokens": "Tokens", "concurrency": "Requests at once", "spend": "Spend",
}  # fmt: skip
WINDOWS = {
    "second": "per second", "minute": "per minute", "day": "per day", "week": "per week",
    "month": "per month", "lifetime": "in all", "at_once": "",
}  # fmt: skip
# What people set most often stands first.
CHOSEN_FROM: tuple[contract.LimitKind, ...] = (
    "spend", "requests", "concurrency", "total_tokens", "input_tokens", "output_tokens",
)  # fmt: skip


def label(kind: str, window: str) -> str:
    """`Spend per month`."""
    if window == "prepaid":
        return "Prepaid balance"
    if window == "credit":
        return "Prepaid credit"
    return f"{KINDS[kind]} {WINDOWS[window]}".strip()


def amount(kind: str, value: int, currency: str) -> str:
    """`$10.00` of spend, else `6,000`."""
    if kind == "spend":
        return str(amounts.exact(value, amounts.NANO_DIGITS, currency))
    return f"{value:,}"


def typed(kind: str, value: int) -> str:
    """An amount as a field takes it: `10.5`, `6000`."""
    return money.nano_to_text(value) if kind == "spend" else str(value)
