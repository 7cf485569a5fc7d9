"""The limits of a policy as admission applies them to one model, at one time.

What `admission.lua` is told of each limit, and until when it may be told so: calendar windows end,
and so do temporary raises.
"""

from datetime import UTC, datetime, timedelta

import msgspec

from meterplane.contracts import admission_keys as names
from meterplane.contracts import windows
from meterplane.contracts.policy import KeyPolicy, Limit

SECONDS: dict[str, int] = {"second": 1, "minute": 60}
_UNITS = {"requests": "r", "input_tokens": "i", "output_tokens": "o", "total_tokens": "t"}
KEEP_COUNTER_S = 2 * 86_400  # a day, and whatever is open when it ends


class AppliedLimit(msgspec.Struct, frozen=True, gc=False):
    """One limit now.

    Attributes:
        amount: what holds now; `depth` how much of it at once.
        label: of its window. `key`: where Redis counts it.
        rule: of `admission.lua`, a letter. `arguments`: what it takes there: three, of a pool that
            no amount bounds none.
        gives_back: whether a request may have taken more of it than it used.
    """

    limit: Limit
    amount: int
    depth: int
    label: str
    key: str
    rule: str
    arguments: tuple[str, ...]
    gives_back: bool

    @property
    def is_budget(self) -> bool:
        return self.limit.kind == "spend"


def applied_limits(policy: KeyPolicy, model: str, at_ms: int) -> tuple[list[AppliedLimit], int]:
    """What applies to a request for `model`, and until when (milliseconds since the epoch).

    Spend limits come last. Those that only notify are none of admission's: usage tells of them.
    """
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    limits = [limit for limit in policy.limits if _applies(limit, model)]
    limits.sort(key=lambda limit: limit.kind == "spend")
    until_ms = min((_holds_until_ms(limit, at, at_ms) for limit in limits), default=_NEVER_MS)
    return [_applied(policy, limit, at, at_ms) for limit in limits], until_ms


_NEVER_MS = 2**62 // 1_000_000


def _applies(limit: Limit, model: str) -> bool:
    if limit.level == "key_model" and limit.model != model:
        return False
    return limit.kind != "spend" or limit.mode == "enforce"


def _holds_until_ms(limit: Limit, at: datetime, at_ms: int) -> int:
    ends = windows.ends(limit.window, at)
    until_ms = int(ends.timestamp() * 1000) if ends is not None else _NEVER_MS
    raised_until_ms = limit.raised_until_ms or 0
    changes = [raised_until_ms, *(step.from_ms for step in limit.steps)]
    return min((each for each in (until_ms, *changes) if each > at_ms), default=until_ms)


def _applied(policy: KeyPolicy, limit: Limit, at: datetime, at_ms: int) -> AppliedLimit:
    amount = limit.amount_at(at_ms)
    depth = amount if limit.burst is None else limit.burst
    label = windows.label(limit.window, at, limit.generation)
    rule, *arguments = _rule(limit, amount, depth)
    return AppliedLimit(
        limit=limit,
        amount=amount,
        depth=depth,
        label=label,
        key=names.limit(policy.tenant_id, limit, label),
        rule=rule if limit.mode == "enforce" else rule.upper(),
        arguments=tuple(arguments),
        gives_back=limit.kind != "requests",
    )


def _rule(limit: Limit, amount: int, depth: int) -> tuple[str, ...]:
    if limit.window == "credit":
        return "b", "-", str(amount), "0"
    if limit.kind == "spend":
        return ("p",)
    if limit.kind == "concurrency":
        return "z", "-", str(amount), "0"
    unit = _UNITS[limit.kind]
    seconds = SECONDS.get(limit.window)
    if seconds is None or amount == 0:  # a rate of nothing is a count of nothing
        return "c", unit, str(amount), str(KEEP_COUNTER_S)
    return "g", unit, f"{seconds * 1_000_000 / amount:.15g}", str(depth)


def seconds_left(window_end: datetime | None, at: datetime) -> int:
    """Whole seconds, rounded up, until a window ends; 1 for one that never does."""
    if window_end is None:
        return 1
    return max(1, -((at - window_end) // timedelta(seconds=1)))
