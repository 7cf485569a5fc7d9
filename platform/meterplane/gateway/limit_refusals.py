"""What a request is told that a limit or a budget refuses: which one, whose, and when to come back.

Nothing is retried by a client for what does not get better by waiting: those have no `retry-after`,
and the OpenAI clients are told so (`errors.render`).
"""

from datetime import datetime, timedelta

from meterplane.contracts import windows
from meterplane.contracts.policy import Limit
from meterplane.gateway.applied_limits import AppliedLimit, seconds_left
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.money import nano_to_text

NEVER = -1  # of admission.lua: not even alone
STRANDED_WAIT_S = 5

_OF = {
    "organisation": "this organisation",
    "project": "this project",
    "key": "this key",
    "key_model": "this key for {model}",
}
_WHAT = {
    "requests": "requests",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "total_tokens": "tokens",
    "concurrency": "requests at once",
}
_PER = {"second": " per second", "minute": " per minute", "day": " per day (UTC)", "at_once": ""}
_BUDGET = {
    "day": "daily budget",
    "week": "weekly budget",
    "month": "monthly budget",
    "lifetime": "lifetime budget",
    "prepaid": "prepaid balance",
    "credit": "prepaid credit",
}


class LimitReached(CallerError):
    """429. `applied` is the limit, `wait_us` when the request would pass; -1: never."""

    def __init__(self, applied: AppliedLimit, wait_us: int) -> None:
        self.applied = applied
        limit, what = applied.limit, described(applied)
        retry_after_s = _retry_after_s(applied, wait_us)
        if wait_us == NEVER and limit.kind != "requests":
            code = "request_too_large"
            message = f"This request may use more than the limit of {what} allows: ask for less."
        elif retry_after_s is None:
            code, message = "rate_limit_exceeded", f"The limit of {what} allows nothing."
        elif limit.kind == "concurrency":
            code = "concurrency_limit_exceeded"
            message = f"The limit of {what} is reached. Try again when one of them has ended."
        else:
            code = "rate_limit_exceeded"
            message = f"The limit of {what} is reached. Try again in {_spoken(retry_after_s)}."
        super().__init__(code, message, status=429, retry_after_s=retry_after_s)


def described(applied: AppliedLimit) -> str:
    """`6,000 requests per minute of this organisation`."""
    limit = applied.limit
    what = _WHAT[limit.kind]
    if applied.amount == 1:
        what = what.replace("requests", "request").replace("tokens", "token")
    return f"{applied.amount:,} {what}{_PER[limit.window]} of {_whose(limit)}"


def _whose(limit: Limit) -> str:
    return _OF[limit.level].format(model=limit.model)


def _retry_after_s(applied: AppliedLimit, wait_us: int) -> int | None:
    if wait_us == NEVER:
        return None
    if applied.limit.window == "day":
        at = clock.now()
        return seconds_left(windows.ends("day", at), at)
    return max(1, -(-wait_us // 1_000_000))


def _spoken(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds} s"
    minutes = -(-seconds // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def budget_exceeded(
    applied: AppliedLimit, at: datetime, left_nano: int, currency: str
) -> CallerError:
    """402: what is left of a budget does not cover the request."""
    limit = applied.limit
    ends = windows.ends(limit.window, at)
    if limit.window == "credit":
        return CallerError(
            "insufficient_quota",
            f"The {_BUDGET[limit.window]} of {_whose(limit)} does not cover this request: "
            f"{nano_to_text(max(0, left_nano))} {currency} of it is left. Have credit added (the"
            " Billing page of the portal shows what you have), or ask for fewer tokens.",
            status=402,
        )
    if limit.window == "prepaid":
        todo = "Top it up in the portal, or ask for fewer tokens."
    elif ends is None:
        todo = "Raise it in the portal, or ask for fewer tokens."
    else:
        last = ends - timedelta(seconds=1)
        todo = (
            f"It starts afresh after {last:%Y-%m-%d} (UTC). Raise it in the portal, or ask for "
            "fewer tokens."
        )
    return CallerError(
        "insufficient_quota",
        f"The {_BUDGET[limit.window]} of {_whose(limit)} does not cover this request. {todo}",
        status=402,
    )


def budget_reserved(applied: AppliedLimit) -> CallerError:
    """429: it would fit, if what is still running cost less than it may."""
    limit = applied.limit
    return CallerError(
        "budget_reserved",
        f"What is left of the {_BUDGET[limit.window]} of {_whose(limit)} is reserved by requests "
        "that are still running. Try again when they have ended.",
        status=429,
        retry_after_s=1,
    )


def budget_rebuilding() -> WorldError:
    """503: what was granted to a Redis that was lost has not been accounted for yet."""
    return WorldError(
        "budget_rebuilding",
        "This budget is being put together again after a failure on our side. Nothing was charged; "
        "try again shortly.",
        retry_after_s=STRANDED_WAIT_S,
    )
