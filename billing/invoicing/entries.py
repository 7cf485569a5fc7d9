"""The ledger entries that an invoice calls for, as a function of what it is.

Pure: an invoice as values in, entries out. Which accounts move is said in `ledger.movements`.

    open             finalised
    paid             finalised, paid; in parts: finalised, for each part has an entry of its own
    void             finalised, voided
    uncollectible    finalised, written off

What an interim invoice bills is an advance: it is in `deferred_revenue` until the invoice of its
period takes it back, and the period's whole usage is revenue. An invoice that is voided leaves that
account as it is, for what is on an invoice counts as invoiced: what it forgives is taken from
`revenue:interim`, whichever of the two is voided, and in whatever order.

An invoice that is paid or voided after it was written off keeps that entry, and the last one takes
the money from `bad_debt` instead of `receivable`. What moves nothing has no entry: a draft, one
that is finalising, an invoice over zero once it is paid, one whose lines are all zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from billing.ledger import movements
from billing.ledger.accounts import DEFERRED_REVENUE, revenue
from billing.ledger.entry import Entry, Leg
from billing.ledger.movements import Legs

FINALISED = "invoice.finalised"
PAID = "invoice.paid"
VOIDED = "invoice.voided"
WRITTEN_OFF = "invoice.written_off"
FORGIVEN_ADVANCE = revenue("interim")
KINDS = frozenset({FINALISED, PAID, VOIDED, WRITTEN_OFF})


@dataclass(frozen=True, slots=True)
class Invoiced:
    """An invoice as the ledger sees it. `earned`: the sum of its lines per account, credit aside.

    `drawn_minor` is what credit pays of it: an entry of credit's own, for revenue is what was used,
    whoever pays. The total is what is left. `given_back_minor` is credit of earlier invoices that
    it gives back, and `returned_minor` what later ones gave back of its own; `given_back` is the
    difference by account. That stands when the invoice is voided: the credit is the customer's.

    `paid_minor` is what was paid; None: what was due. What was paid in parts is told by these.

    `lowered` is what credit notes took from it while it was open, per account; of that,
    `restored_minor` is credit that was given back, and the rest is not due any more.

    `finalised_at` and `paid_at` are its own; `moved_at` is when it got its present status, which an
    invoice does not keep of a void or a write-off.
    """

    id: UUID
    name: str
    status: str
    currency: str
    total_minor: int
    earned: Mapping[str, int]
    finalised_at: datetime | None
    paid_at: datetime | None
    moved_at: datetime
    was_written_off: bool = False
    paid_minor: int | None = None
    paid_in_parts: bool = False
    drawn_minor: int = 0
    given_back_minor: int = 0
    returned_minor: int = 0
    given_back: Mapping[str, int] = field(default_factory=dict)
    lowered: Mapping[str, int] = field(default_factory=dict)
    restored_minor: int = 0

    @property
    def due_minor(self) -> int:
        return self.total_minor - sum(self.lowered.values()) + self.restored_minor

    @property
    def overpaid_minor(self) -> int:
        """What was paid beyond what was due: the customer's."""
        return max(0, (self.paid_minor or 0) - max(0, self.due_minor))


def added(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    """The sums by account."""
    names = sorted({*first, *second})
    return {name: first.get(name, 0) + second.get(name, 0) for name in names}


def entries_of(invoice: Invoiced) -> list[Entry]:
    """Every entry that the invoice's status calls for, in order."""
    if invoice.status in ("draft", "finalising"):
        return []
    finalised = movements.invoice_finalised(
        invoice.total_minor + invoice.drawn_minor - invoice.given_back_minor, invoice.earned
    )
    finalised_at = invoice.finalised_at or invoice.moved_at
    moved: list[tuple[str, Legs, datetime]] = [(FINALISED, finalised, finalised_at)]
    is_written_off = invoice.status == "uncollectible"
    was_written_off = invoice.was_written_off and not is_written_off
    if is_written_off or was_written_off:
        legs = movements.invoice_written_off(invoice.due_minor)
        moved.append((WRITTEN_OFF, legs, invoice.moved_at))
    if invoice.status == "paid" and not invoice.paid_in_parts:
        legs = movements.invoice_paid(
            invoice.due_minor,
            over_minor=invoice.overpaid_minor,
            was_written_off=was_written_off,
        )
        moved.append((PAID, legs, invoice.paid_at or invoice.moved_at))
    if invoice.status == "void":
        drawn_minor = invoice.drawn_minor - invoice.restored_minor - invoice.returned_minor
        earned = added(_left(invoice), invoice.given_back)
        left = movements.invoice_finalised(invoice.due_minor + drawn_minor, earned)
        legs = movements.invoice_voided(
            left, was_written_off=was_written_off, drawn_minor=drawn_minor
        )
        moved.append((VOIDED, legs, invoice.moved_at))
    return [_entry(invoice, kind, legs, at) for kind, legs, at in moved if legs]


def _left(invoice: Invoiced) -> dict[str, int]:
    """What it is made of, less what credit notes took, with its advances as what is forgiven."""
    left: dict[str, int] = {}
    for account, amount in invoice.earned.items():
        name = FORGIVEN_ADVANCE if account == DEFERRED_REVENUE else account
        left[name] = left.get(name, 0) + amount
    for account, amount in invoice.lowered.items():
        left[account] = left.get(account, 0) - amount
    return left


def _entry(invoice: Invoiced, kind: str, legs: tuple[Leg, ...], at: datetime) -> Entry:
    act = kind.partition(".")[2].replace("_", " ")
    return Entry(kind, str(invoice.id), invoice.currency, legs, at, f"{invoice.name} {act}")
