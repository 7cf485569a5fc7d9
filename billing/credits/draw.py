"""What is taken from which credit, and given back: pure arithmetic, no tables, no clock.

Guarantees: nothing is made and nothing is lost: what was applied, what remains and what expired
are together what the grants held, and what was applied and what is due are together the amount.
The order of drawing is total, so the order in which grants are handed in cannot matter.

Amounts are integers of one currency in whatever unit the caller keeps (minor, nano); nothing is
divided, so nothing is rounded. Scopes are not known here: hand in the grants that may be used.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from meterplane.kernel.errors import CallerError

GrantKind = Literal["promotional", "purchased"]
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Grant:
    """What is left of a grant. It may be drawn until `expires_at`, which is outside; None: always.

    `created_at` only orders grants; one that does not say when it was made counts as the youngest.
    """

    id: str
    amount: int
    priority: int = 0
    expires_at: datetime | None = None
    kind: GrantKind = "purchased"
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """So much of one grant; never 0."""

    id: str
    amount: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """All lists in the order of drawing. `due` is what the grants did not cover."""

    applied: tuple[Part, ...]
    remaining: tuple[Part, ...]
    due: int
    expired: tuple[Part, ...]


def order(grants: Iterable[Grant]) -> list[Grant]:
    """Lowest priority first, then the earlier expiry, promotional, the older, the lower id."""
    return sorted(grants, key=_rank)


def draw(grants: Iterable[Grant], amount: int, at: datetime) -> Drawn:
    """Pay `amount` at the instant `at` from what has not expired by then.

    Raises `CallerError` `amount_negative`, and `grant_repeated` for an id that is there twice.
    """
    if amount < 0:
        raise _negative("amount")
    applied: list[Part] = []
    remaining: list[Part] = []
    expired: list[Part] = []
    seen: set[str] = set()
    due = amount
    for grant in order(grants):
        if grant.amount < 0:
            raise _negative("grants")
        if grant.id in seen:
            raise CallerError(
                "grant_repeated",
                f"Grant {grant.id!r} is there twice; its amount would count twice.",
                status=422,
                field="grants",
            )
        seen.add(grant.id)
        if grant.expires_at is not None and grant.expires_at <= at:
            _add(expired, grant.id, grant.amount)
            continue
        taken = min(due, grant.amount)
        due -= taken
        _add(applied, grant.id, taken)
        _add(remaining, grant.id, grant.amount - taken)
    return Drawn(tuple(applied), tuple(remaining), due, tuple(expired))


def restore(consumed: Sequence[Part], amount: int) -> tuple[Part, ...]:
    """Give `amount` back to what was `consumed`, in that order: what went last comes back first.

    Raises `CallerError` `amount_negative`, and `restore_too_large` for more than was consumed.
    """
    if amount < 0:
        raise _negative("amount")
    if any(part.amount < 0 for part in consumed):
        raise _negative("consumed")
    restored: list[Part] = []
    left = amount
    for part in reversed(consumed):
        given = min(left, part.amount)
        left -= given
        _add(restored, part.id, given)
    if left:
        raise CallerError(
            "restore_too_large",
            "More is to be restored than was consumed; nothing was restored.",
            status=422,
            field="amount",
        )
    return tuple(restored)


def _rank(grant: Grant) -> tuple[int, datetime, bool, datetime, str]:
    return (
        grant.priority,
        grant.expires_at or _NEVER,
        grant.kind != "promotional",
        grant.created_at or _NEVER,
        grant.id,
    )


def _add(parts: list[Part], grant_id: str, amount: int) -> None:
    if amount:
        parts.append(Part(grant_id, amount))


def _negative(field: str) -> CallerError:
    return CallerError("amount_negative", f"{field} must not be negative.", status=422, field=field)
