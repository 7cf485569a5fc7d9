"""Amounts, instants and computed columns as the console's tables show them."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from unfold.decorators import action as unfold_action
from unfold.decorators import display

from meterplane.kernel import amounts

Column = TypeVar("Column", bound=Callable[..., Any])


def column(**shown_as: Any) -> Callable[[Column], Column]:
    """Unfold's `display`, which carries no types."""
    decorate: Callable[[Column], Column] = display(**shown_as)
    return decorate


def action(**shown_as: Any) -> Callable[[Column], Column]:
    """Unfold's `action`, a page or an act of a row, which carries no types either."""
    decorate: Callable[[Column], Column] = unfold_action(**shown_as)
    return decorate


def nano(amount_nano: int | None, currency: str) -> str:
    """An exact amount, or a dash where there is none."""
    if amount_nano is None:
        return amounts.NOTHING
    return str(amounts.exact(amount_nano, amounts.NANO_DIGITS, currency))


def pico(amount_pico: int, currency: str) -> str:
    """An exact unit price."""
    return str(amounts.exact(amount_pico, amounts.PICO_DIGITS, currency))


def utc(instant: datetime | None) -> str:
    """To the second; the console is in UTC throughout."""
    return f"{instant:%Y-%m-%d %H:%M:%S}" if instant else amounts.NOTHING
