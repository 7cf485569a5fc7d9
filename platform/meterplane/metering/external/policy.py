"""What an installation allows of usage that is told to it, and how far back.

From the environment (`EVENT_OVERLAYS`, `EVENT_WINDOW_DAYS`): an operator decides it once, beside
its books, and no program that holds an operator key can widen it.
"""

from datetime import datetime, timedelta
from typing import Literal

from django.conf import settings

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError

Overlay = Literal["amend", "deprecate", "backfill"]
AHEAD = timedelta(minutes=5)  # of another machine's clock; Stripe's and Orb's bound too


def window() -> timedelta:
    """How far back events are taken in, and may be corrected."""
    return timedelta(days=settings.EVENT_WINDOW_DAYS)


def check_allowed(overlay: Overlay) -> None:
    """Raises `CallerError` 403 `overlay_not_allowed` where the installation forbids it."""
    if overlay not in settings.EVENT_OVERLAYS:
        raise CallerError(
            "overlay_not_allowed",
            f"This installation does not let events be changed by {overlay}: EVENT_OVERLAYS"
            f" allows {', '.join(sorted(settings.EVENT_OVERLAYS)) or 'none'}.",
            status=403,
        )


def check_not_ahead(at: datetime, field: str = "time") -> None:
    """Raises `CallerError` `time_ahead`."""
    if at > clock.now() + AHEAD:
        raise CallerError(
            "time_ahead",
            f"{field} is {at.isoformat()}, more than {AHEAD.seconds // 60} minutes from now;"
            " report what was used, once it was used.",
            status=422,
            field=field,
        )


def check_in_window(at: datetime, *, status: int, field: str = "time") -> None:
    """Raises `CallerError` `outside_window` for what is older than may still be told."""
    if at < clock.now() - window():
        raise CallerError(
            "outside_window",
            f"{field} is {at.isoformat()}, more than {settings.EVENT_WINDOW_DAYS} days ago;"
            " this installation's usage of then is settled (EVENT_WINDOW_DAYS).",
            status=status,
            field=field,
        )
