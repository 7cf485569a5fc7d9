"""What a caller is told of its limits with every answer.

- `x-ratelimit-*`, as the OpenAI clients read them: of the limit on requests, and of that on tokens,
  of which the smallest part is left.
- `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers): every limit that
  refuses, by level, kind and window.
- `x-meterplane-budget-*`: of the budget of which least is left, in the policy's currency. It falls
  by what a request is billed: before that is known, by what is reserved for it.

Made from what the admission itself answered; nothing is asked again.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from meterplane.contracts import windows
from meterplane.gateway.applied_limits import SECONDS, AppliedLimit, seconds_left
from meterplane.gateway.limit_refusals import LimitReached
from meterplane.kernel import clock

if TYPE_CHECKING:
    from meterplane.gateway.admit import Admission

NANO = 1_000_000_000
_DAY_S = 86_400


class _Rate(msgspec.Struct, frozen=True, gc=False):
    """A limit on requests or tokens, what is left of it, and seconds until it is whole again."""

    applied: AppliedLimit
    left: int
    reset_s: float


def limit_headers(admission: "Admission", billed_nano: int | None = None) -> bytes:
    """Header lines of an admitted request; `billed_nano` once it is settled."""
    limits = admission.prepared.limits
    if not limits:
        return b""
    lines = _rate_lines(list(_rates(limits, admission.left)))
    back_nano = 0 if billed_nano is None else admission.reserved_nano - billed_nano
    budgets = [
        (applied.amount + left + back_nano, applied)
        for applied, left in zip(limits, admission.left, strict=True)
        if applied.is_budget and left is not None
    ]
    if budgets:
        remaining_nano, tightest = min(budgets, key=lambda each: each[0])
        lines += _budget_lines(tightest, max(0, remaining_nano))
    return lines.encode("ascii", "replace")


def refusal_headers(refused: LimitReached) -> bytes:
    """Header lines of a request that a limit refused."""
    wait_s = float(refused.retry_after_s or 0)
    return _rate_lines([_Rate(refused.applied, 0, wait_s)]).encode("ascii", "replace")


def _rates(limits: list[AppliedLimit], left: list[int | None]) -> Iterator[_Rate]:
    for applied, each in zip(limits, left, strict=True):
        if applied.is_budget or applied.limit.mode != "enforce" or each is None:
            continue
        yield _Rate(applied, max(0, each), _reset_s(applied, max(0, each)))


def _reset_s(applied: AppliedLimit, left: int) -> float:
    window = applied.limit.window
    if window in SECONDS and applied.amount:
        return (applied.depth - left) * SECONDS[window] / applied.amount
    if window == "day":
        at = clock.now()
        return float(seconds_left(windows.ends("day", at), at))
    return 0.0


def _rate_lines(rates: list[_Rate]) -> str:
    if not rates:
        return ""
    told = ", ".join(
        f'"{_name(each.applied)}";r={each.left};t={_whole(each.reset_s)}' for each in rates
    )
    policies = ", ".join(
        f'"{_name(each.applied)}";q={each.applied.amount}{_window(each.applied)}' for each in rates
    )
    lines = f"ratelimit: {told}\r\nratelimit-policy: {policies}\r\n"
    for what, of_tokens in (("requests", False), ("tokens", True)):
        counted = [
            each
            for each in rates
            if each.applied.limit.window != "at_once"
            and (each.applied.limit.kind != "requests") == of_tokens
        ]
        if counted:
            least = min(counted, key=lambda each: each.left / (each.applied.amount or 1))
            lines += (
                f"x-ratelimit-limit-{what}: {least.applied.amount}\r\n"
                f"x-ratelimit-remaining-{what}: {least.left}\r\n"
                f"x-ratelimit-reset-{what}: {_duration(least.reset_s)}\r\n"
            )
    return lines


def _name(applied: AppliedLimit) -> str:
    limit = applied.limit
    return f"{limit.level}-{limit.kind}-{limit.window}".replace("_", "-")


def _window(applied: AppliedLimit) -> str:
    window = applied.limit.window
    if window == "at_once":
        return ';qu="concurrent-requests"'
    unit = "" if applied.limit.kind == "requests" else ';qu="tokens"'
    return f"{unit};w={SECONDS.get(window, _DAY_S)}"


def _budget_lines(applied: AppliedLimit, remaining_nano: int) -> str:
    limit = applied.limit
    name = f"{limit.level}-{limit.window}".replace("_", "-")
    return (
        f"x-meterplane-budget: {name}\r\n"
        f"x-meterplane-budget-limit: {_amount(applied.amount)}\r\n"
        f"x-meterplane-budget-remaining: {_amount(remaining_nano)}\r\n"
    )


def _amount(nano: int) -> str:
    return f"{nano // NANO}.{nano % NANO:09d}"


def _whole(seconds: float) -> int:
    return int(-(-seconds // 1))


def _duration(seconds: float) -> str:
    """As OpenAI writes it: `12ms`, `6m0s`, `1h30m0s`."""
    if seconds < 1:
        return f"{int(seconds * 1000)}ms"
    whole = _whole(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
