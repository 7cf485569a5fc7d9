"""What a caller is told of its limits with every answer.

- `x-ratelimit-*`, as the OpenAI clients read them: of the limit on requests, and of that on tokens,
  of which the smallest part is left.
- `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers): every limit that
  refuses, by level, kind and window.
- `x-meterplane-budget-*`: of the budget of which least is left, in the policy's currency. It falls
  by what a request is billed: before that is known, by what is reserved for it.

Made from what the admission itself answered; nothing is asked again.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from meterplane.contracts import windows
from meterplane.gateway.applied_limits import SECONDS, AppliedLimit, seconds_left
from meterplane.gateway.limit_refusals import LimitReached
from meterplane.kernel import clock

if TYPE_CHECKING:
    from meterplane.gateway.admit import Admission

NANO = 1_000_000_000
_DAY_S = 86_400


def limit_headers(admission: "Admission", billed_nano: int | None = None) -> bytes:
    """Header lines of an admitted request; `billed_nano` once it is settled."""
    back_nano = 0 if billed_nano is None else admission.reserved_nano - billed_nano
    return admission.prepared.headers.lines(admission.left, back_nano)


def refusal_headers(refused: LimitReached) -> bytes:
    """Header lines of a request that a limit refused."""
    wait_s = float(refused.retry_after_s or 0)
    return _rate_lines([(_Rate(refused.applied), 0, wait_s)]).encode("ascii", "replace")


class LimitHeaders:
    """The headers of some limits: what of them is the same in every answer is written once."""

    __slots__ = ("_budgets", "_rates")

    def __init__(self, limits: Sequence[AppliedLimit]) -> None:
        self._rates = [
            (place, _Rate(applied))
            for place, applied in enumerate(limits)
            if not applied.is_budget and applied.limit.mode == "enforce"
        ]
        self._budgets = [
            (place, applied.amount, _budget_lines(applied))
            for place, applied in enumerate(limits)
            if applied.is_budget
        ]

    def lines(self, left: Sequence[int | None], back_nano: int) -> bytes:
        """`left` of each limit, as `Admission` has it; what of the reservation came back."""
        rates = []
        for place, rate in self._rates:
            there = left[place]
            if there is not None:
                there = max(there, 0)
                rates.append((rate, there, rate.reset_s(there)))
        lines = _rate_lines(rates) if rates else ""
        remaining_nano, told = 0, ""
        for place, amount, text in self._budgets:
            there = left[place]
            if there is not None and (not told or amount + there < remaining_nano):
                remaining_nano, told = amount + there, text
        if told:
            lines += f"{told}{_amount(max(0, remaining_nano + back_nano))}\r\n"
        return lines.encode("ascii", "replace")


class _Rate:
    """What is constant of a limit on requests or tokens.

    Attributes:
        name: as `RateLimit` names it. `policy`: its item of `RateLimit-Policy`.
        amount: by which what is left of several is compared.
        heads: of its three `x-ratelimit-` lines; none of a limit on requests at once.
        kind: what those lines are of.
    """

    __slots__ = ("_depth", "_unit_s", "_window", "amount", "heads", "kind", "name", "policy")

    def __init__(self, applied: AppliedLimit) -> None:
        window, amount = applied.limit.window, applied.amount
        self.name = f'"{_name(applied)}"'
        self.policy = f"{self.name};q={amount}{_window(applied)}"
        self.kind = "requests" if applied.limit.kind == "requests" else "tokens"
        self.heads: tuple[str, str] | None = None
        if window != "at_once":
            before = f"x-ratelimit-limit-{self.kind}: {amount}\r\nx-ratelimit-remaining-"
            self.heads = f"{before}{self.kind}: ", f"\r\nx-ratelimit-reset-{self.kind}: "
        self.amount = amount or 1
        self._depth = applied.depth
        self._unit_s = SECONDS[window] / amount if window in SECONDS and amount else 0.0
        self._window = window

    def reset_s(self, left: int) -> float:
        """Until it is whole again."""
        if self._unit_s:
            return (self._depth - left) * self._unit_s
        if self._window == "day":
            at = clock.now()
            return float(seconds_left(windows.ends("day", at), at))
        return 0.0


def _rate_lines(rates: list[tuple[_Rate, int, float]]) -> str:
    """Of each: what is left, and seconds until it is whole again."""
    told = ", ".join([f"{rate.name};r={left};t={_whole(reset_s)}" for rate, left, reset_s in rates])
    policies = ", ".join([rate.policy for rate, _, _ in rates])
    lines = f"ratelimit: {told}\r\nratelimit-policy: {policies}\r\n"
    least: dict[str, tuple[float, str]] = {"requests": (0.0, ""), "tokens": (0.0, "")}
    for rate, left, reset_s in rates:
        if rate.heads is not None:
            share, text = left / rate.amount, least[rate.kind][1]
            if not text or share < least[rate.kind][0]:
                limit_and_left, reset = rate.heads
                text = f"{limit_and_left}{left}{reset}{_duration(reset_s)}\r\n"
                least[rate.kind] = share, text
    return lines + least["requests"][1] + least["tokens"][1]


def _name(applied: AppliedLimit) -> str:
    limit = applied.limit
    return f"{limit.level}-{limit.kind}-{limit.window}".replace("_", "-")


def _window(applied: AppliedLimit) -> str:
    window = applied.limit.window
    if window == "at_once":
        return ';qu="concurrent-requests"'
    unit = "" if applied.limit.kind == "requests" else ';qu="tokens"'
    return f"{unit};w={SECONDS.get(window, _DAY_S)}"


def _budget_lines(applied: AppliedLimit) -> str:
    """All but what remains, which comes last."""
    limit = applied.limit
    name = f"{limit.level}-{limit.window}".replace("_", "-")
    return (
        f"x-meterplane-budget: {name}\r\n"
        f"x-meterplane-budget-limit: {_amount(applied.amount)}\r\n"
        "x-meterplane-budget-remaining: "
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
