"""Calendar windows of limits, in UTC: their labels, and when they end.

The label of a window is in the name of what is counted in it, in `budget_window.window` and in
alerts: `2026-11-29` for a day, `2026-W48` for an ISO week (from Monday), `2026-11` for a month,
the window's own name for those that never end (`lifetime`, `prepaid`) and for rates. Of `credit` it
has a number behind it, `credit-2`: each time an organisation is held to its credit begins anew.
"""

from datetime import datetime, timedelta

from meterplane.contracts.policy import LimitWindow

ENDLESS: tuple[LimitWindow, ...] = ("second", "minute", "lifetime", "prepaid", "at_once")
CREDIT = "credit-"


def label(window: LimitWindow, at: datetime, generation: int = 0) -> str:
    """The window's label at an instant in UTC."""
    if window == "credit":
        return f"{CREDIT}{generation}"
    if window == "day":
        return at.strftime("%Y-%m-%d")
    if window == "week":
        return at.strftime("%G-W%V")
    if window == "month":
        return at.strftime("%Y-%m")
    return window


def ends(window: LimitWindow, at: datetime) -> datetime | None:
    """When the window that holds at an instant in UTC ends; None for one that never does."""
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    if window == "day":
        return day + timedelta(days=1)
    if window == "week":
        return day + timedelta(days=7 - day.weekday())
    if window == "month":
        return (day.replace(day=1) + timedelta(days=31)).replace(day=1)
    return None


def begins(window: LimitWindow, at: datetime) -> datetime | None:
    """When the window that holds at an instant in UTC began; None for one that never does."""
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    if window == "day":
        return day
    if window == "week":
        return day - timedelta(days=day.weekday())
    if window == "month":
        return day.replace(day=1)
    return None


def of_label(label: str) -> LimitWindow:
    """The window a label is of."""
    for window in ENDLESS:
        if label == window:
            return window
    if label.startswith(CREDIT):
        return "credit"
    if "W" in label:
        return "week"
    return "day" if label.count("-") == 2 else "month"


def is_endless(label: str) -> bool:
    """Whether what a label names never ends."""
    return label in ENDLESS or label.startswith(CREDIT)
