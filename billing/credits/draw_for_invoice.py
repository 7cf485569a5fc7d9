"""Pay what an invoice owes from the organisation's credit, inside the transaction that closes it.

Guarantees: an invoice draws once; asked again the same lines answer. What is drawn, its ledger
entry and the invoice commit together or not at all. No grant is overdrawn, whatever closes, expires
or is granted at once. The invoice's total never falls below zero.

Which grants: those that are live at the last instant of the invoice's period. A grant is live from
`effective_at` up to `expires_at`, and the period ends before `ends_at`; so one that ends with the
month pays for that month, and one that begins with the next does not. Late usage on the invoice is
paid from the credit of the period that it is invoiced in.

In which order: `draw.order`. What each pays: `cover`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Q

from billing.credits.cover import Payable, Payer, cover
from billing.credits.draw import order
from billing.credits.models import CreditGrant, CreditMovement, CreditRemaining
from billing.credits.postings import post_moved
from billing.credits.queries import as_drawn_from
from billing.credits.turns import one_act_at_a_time
from meterplane.kernel import clock
from meterplane.kernel.invariant import ensure


@dataclass(frozen=True, slots=True)
class CreditLine:
    """What one grant pays of an invoice; `amount_minor` is negative."""

    grant_id: UUID
    kind: str
    amount_minor: int
    description: str


def draw_for_invoice(
    *,
    tenant_id: UUID,
    invoice_id: UUID,
    currency: str,
    ends_at: datetime,
    lines: Iterable[Payable],
) -> list[CreditLine]:
    """Draw for the invoice that is being written; its credit lines in the order of consumption.

    Needs the tenant's door, and an invoice of that id by the end of the transaction.
    """
    if not CreditGrant.objects.any_row():
        return []  # as most have it: one that is made at this moment comes after this invoice
    one_act_at_a_time(tenant_id)
    drawn = _drawn_before(invoice_id)
    if not drawn:
        drawn = _plan(currency, ends_at, list(lines), {})
        _write(tenant_id, invoice_id, ends_at, drawn)
        if drawn:
            post_moved(CreditMovement.Kind.DRAWN, invoice_id, drawn, clock.now())
    return _as_lines(drawn)


def would_draw(
    *,
    currency: str,
    ends_at: datetime,
    lines: Iterable[Payable],
    given_back: Mapping[UUID, int] | None = None,
) -> list[CreditLine]:
    """What an invoice of these lines would draw if it were written now. Needs the tenant's door.

    `given_back`, by grant, is what it would give back before it draws.
    """
    if not CreditGrant.objects.any_row():
        return []
    return _as_lines(_plan(currency, ends_at, list(lines), given_back or {}))


def _as_lines(drawn: list[tuple[CreditGrant, int]]) -> list[CreditLine]:
    return [
        CreditLine(row.id, row.kind, -amount_minor, described(row)) for row, amount_minor in drawn
    ]


def _plan(
    currency: str, ends_at: datetime, lines: list[Payable], given_back: Mapping[UUID, int]
) -> list[tuple[CreditGrant, int]]:
    live = CreditRemaining.objects.filter(
        Q(grant__expires_at__isnull=True) | Q(grant__expires_at__gte=ends_at),
        Q(remaining_minor__gt=0) | Q(grant_id__in=given_back),
        grant__currency=currency,
        grant__effective_at__lt=ends_at,
    ).select_related("grant")
    held = {str(row.grant_id): row.grant for row in live}
    has = {str(row.grant_id): row.remaining_minor + given_back.get(row.grant_id, 0) for row in live}
    in_order = order(as_drawn_from(held[each], has[each]) for each in held)
    payers = [payer_of(held[each.id], each.amount) for each in in_order]
    paid = cover(payers, lines)
    total_minor = sum(line.amount_minor for line in lines)
    ensure(sum(paid) <= max(0, total_minor), "credit pays no more than an invoice owes")
    ensure(
        all(0 <= part <= payer.amount_minor for part, payer in zip(paid, payers, strict=True)),
        "no grant pays more than it has",
    )
    return [(held[each.id], part) for each, part in zip(in_order, paid, strict=True) if part]


def payer_of(row: CreditGrant, amount_minor: int) -> Payer:
    """So much of a grant, and what it is for."""
    return Payer(amount_minor, frozenset(row.models_only), frozenset(row.meters_only))


def _write(
    tenant_id: UUID, invoice_id: UUID, ends_at: datetime, drawn: list[tuple[CreditGrant, int]]
) -> None:
    CreditMovement.objects.bulk_create(
        CreditMovement(
            tenant_id=tenant_id,
            grant=row,
            kind=CreditMovement.Kind.DRAWN,
            amount_minor=amount_minor,
            source_id=invoice_id,
            invoice_id=invoice_id,
            position=position,
            at=ends_at,
        )
        for position, (row, amount_minor) in enumerate(drawn, start=1)
    )


def _drawn_before(invoice_id: UUID) -> list[tuple[CreditGrant, int]]:
    rows = CreditMovement.objects.filter(invoice_id=invoice_id, kind=CreditMovement.Kind.DRAWN)
    return [
        (row.grant, row.amount_minor) for row in rows.select_related("grant").order_by("position")
    ]


def described(row: CreditGrant) -> str:
    """A grant on an invoice."""
    text = f"{row.get_kind_display()} credit"
    return f"{text}: {row.reason}" if row.reason else text
