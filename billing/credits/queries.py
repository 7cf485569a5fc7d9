"""Reads of credit for the portal, the console and the control API.

Each needs the tenant's door. Amounts are minor units of the organisation's currency.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import get_args
from uuid import UUID

from django.db.models import BigIntegerField, Case, F, Q, Sum, When
from django.db.models.functions import Coalesce

from billing.credits.draw import Grant, GrantKind, order
from billing.credits.models import CreditGrant, CreditMovement, CreditRecurrence, CreditRemaining
from meterplane.kernel import clock
from meterplane.kernel.invariant import ensure

PAGE_MAX = 200
HISTORY_MAX = 100
_COMES_BACK = (CreditMovement.Kind.RESTORED, CreditMovement.Kind.REINSTATED)


@dataclass(frozen=True, slots=True)
class GrantView:
    """One grant. `state`: scheduled, live, used (nothing is left) or expired."""

    id: UUID
    kind: str
    currency: str
    amount_minor: int
    remaining_minor: int
    state: str
    priority: int
    effective_at: datetime
    expires_at: datetime | None
    models_only: tuple[str, ...]
    meters_only: tuple[str, ...]
    rollover_max_minor: int | None
    recurrence_id: UUID | None
    rolled_from_id: UUID | None
    reason: str
    created_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True)
class MovementView:
    """What became of a part of a grant."""

    id: UUID
    grant_id: UUID
    grant_kind: str
    reason: str
    kind: str
    amount_minor: int
    invoice_id: UUID | None
    at: datetime
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class RecurrenceView:
    """Grants that come again each month."""

    id: UUID
    kind: str
    currency: str
    amount_minor: int
    priority: int
    starts_at: datetime
    ends_at: datetime | None
    term_months: int | None
    models_only: tuple[str, ...]
    meters_only: tuple[str, ...]
    rollover_max_minor: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class CreditBalance:
    """What may be drawn now, and of which grants, in the order of drawing.

    Usage of the running period is not drawn before the period is closed.
    """

    total_minor: int
    purchased_minor: int
    promotional_minor: int
    expires_next_at: datetime | None
    grants: tuple[GrantView, ...]


def balance(at: datetime | None = None) -> CreditBalance:
    """What is live at `at` (now): effective by then and not expired, with something left."""
    instant = at or clock.now()
    rows = CreditRemaining.objects.filter(
        Q(grant__expires_at__isnull=True) | Q(grant__expires_at__gt=instant),
        remaining_minor__gt=0,
        grant__effective_at__lte=instant,
    ).select_related("grant")
    held = {str(row.grant_id): row for row in rows}
    in_order = order(as_drawn_from(row.grant, row.remaining_minor) for row in held.values())
    grants = tuple(
        _grant(held[each.id].grant, held[each.id].remaining_minor, instant) for each in in_order
    )
    purchased = sum(each.remaining_minor for each in grants if each.kind == "purchased")
    total = sum(each.remaining_minor for each in grants)
    return CreditBalance(
        total_minor=total,
        purchased_minor=purchased,
        promotional_minor=total - purchased,
        expires_next_at=min((e.expires_at for e in grants if e.expires_at), default=None),
        grants=grants,
    )


def list_grants(limit: int = PAGE_MAX) -> list[GrantView]:
    """All grants, newest first, however they stand."""
    rows = CreditRemaining.objects.select_related("grant").order_by(
        "-grant__created_at", "-grant_id"
    )
    now = clock.now()
    return [_grant(row.grant, row.remaining_minor, now) for row in rows[: min(limit, PAGE_MAX)]]


def grant_by_id(grant_id: UUID) -> GrantView | None:
    """One grant; None if the tenant has no such grant."""
    row = CreditRemaining.objects.select_related("grant").filter(grant_id=grant_id).first()
    return None if row is None else _grant(row.grant, row.remaining_minor, clock.now())


def movements_of(grant_id: UUID) -> list[MovementView]:
    """What became of one grant, newest first."""
    return _movements(Q(grant_id=grant_id))


def history(limit: int = HISTORY_MAX) -> list[MovementView]:
    """The newest movements of all grants."""
    return _movements(Q(), limit)


def list_recurrences() -> list[RecurrenceView]:
    """Grants that come again, the latest start first."""
    return [
        RecurrenceView(
            id=row.id,
            kind=row.kind,
            currency=row.currency,
            amount_minor=row.amount_minor,
            priority=row.priority,
            starts_at=row.starts_at,
            ends_at=row.ends_at,
            term_months=row.term_months,
            models_only=tuple(row.models_only),
            meters_only=tuple(row.meters_only),
            rollover_max_minor=row.rollover_max_minor,
            reason=row.reason,
        )
        for row in CreditRecurrence.objects.all()
    ]


def as_drawn_from(of: CreditGrant, remaining_minor: int) -> Grant:
    """A grant as the pure functions of `draw` know it."""
    kinds: tuple[GrantKind, ...] = get_args(GrantKind)
    kind = next(each for each in kinds if each == of.kind)
    return Grant(
        id=str(of.id),
        amount=remaining_minor,
        priority=of.priority,
        expires_at=of.expires_at,
        kind=kind,
        created_at=of.created_at,
    )


def remaining_derived() -> dict[UUID, int]:
    """What remains of each grant by its movements: what the projection must say."""
    back = Case(
        When(movements__kind__in=_COMES_BACK, then=F("movements__amount_minor")),
        default=-F("movements__amount_minor"),
        output_field=BigIntegerField(),
    )
    rows = CreditGrant.objects.order_by().annotate(moved=Coalesce(Sum(back), 0))
    derived = {row.id: row.amount_minor + row.moved for row in rows}
    ensure(all(each >= 0 for each in derived.values()), "no grant is overdrawn")
    return derived


def _movements(which: Q, limit: int = HISTORY_MAX) -> list[MovementView]:
    rows = CreditMovement.objects.filter(which).select_related("grant")
    return [
        MovementView(
            id=row.id,
            grant_id=row.grant_id,
            grant_kind=row.grant.kind,
            reason=row.grant.reason,
            kind=row.kind,
            amount_minor=row.amount_minor,
            invoice_id=row.invoice_id,
            at=row.at,
            recorded_at=row.recorded_at,
        )
        for row in rows[: min(limit, HISTORY_MAX)]
    ]


def _grant(of: CreditGrant, remaining_minor: int, at: datetime) -> GrantView:
    return GrantView(
        id=of.id,
        kind=of.kind,
        currency=of.currency,
        amount_minor=of.amount_minor,
        remaining_minor=remaining_minor,
        state=state_of(of, remaining_minor, at),
        priority=of.priority,
        effective_at=of.effective_at,
        expires_at=of.expires_at,
        models_only=tuple(of.models_only),
        meters_only=tuple(of.meters_only),
        rollover_max_minor=of.rollover_max_minor,
        recurrence_id=of.recurrence_id,
        rolled_from_id=of.rolled_from_id,
        reason=of.reason,
        created_at=of.created_at,
        created_by=of.created_by,
    )


def state_of(of: CreditGrant, remaining_minor: int, at: datetime) -> str:
    """Expired, used (nothing is left), scheduled or live."""
    if of.expires_at is not None and of.expires_at <= at:
        return "expired"
    if not remaining_minor:
        return "used"
    return "scheduled" if at < of.effective_at else "live"
