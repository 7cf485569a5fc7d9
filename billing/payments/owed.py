"""What an organisation has not paid: how much, since when, what happens next and when.

Needs the tenant's door.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from django.conf import settings

from billing.invoicing.models import Invoice
from billing.invoicing.printed import printed_invoice
from billing.payments.by_hand import left_minor, recorded_minor
from billing.payments.dun import steps_ahead
from billing.payments.dunning_mail import AHEAD, next_act, pay_url, why
from billing.payments.models import Method
from billing.payments.terms import due_at, terms, terms_of
from meterplane.kernel import amounts

if TYPE_CHECKING:
    from django.db.models import QuerySet

OWED_MAX = 50


@dataclass(frozen=True, slots=True)
class Transfer:
    """Where money is transferred to, by lines, and in how many days."""

    days_until_due: int
    bank_details: str


@dataclass(frozen=True, slots=True)
class Owed:
    """One overdue invoice. `next_act` is in words, empty where nothing follows."""

    invoice_id: UUID
    number: str
    currency: str
    left_minor: int
    overdue_at: datetime
    why: str
    next_act: str
    next_at: datetime | None
    pay_url: str
    is_by_hand: bool


def owed() -> list[Owed]:
    """Every overdue invoice of the organisation, the oldest first."""
    return [_owed(row) for row in _overdue().order_by("dunning_case__overdue_at")[:OWED_MAX]]


def owed_of(invoice_id: UUID) -> Owed | None:
    """One of them."""
    row = _overdue().filter(id=invoice_id).first()
    return None if row is None else _owed(row)


def still_due_minor(invoice_id: UUID) -> int:
    """What is left to pay of an invoice."""
    return left_minor(Invoice.objects.get(id=invoice_id))


def transfer() -> Transfer | None:
    """How the organisation pays by bank transfer; None where it pays online."""
    own = terms()
    if own.method != Method.MANUAL:
        return None
    return Transfer(own.days_until_due, settings.SELLER_BANK_DETAILS)


def printed_to_pay(invoice_id: UUID) -> bytes | None:
    """An invoice's PDF, which says how to pay it where no provider collects it."""
    return printed_invoice(invoice_id, to_pay(invoice_id))


def to_pay(invoice_id: UUID) -> list[str]:
    """How to pay an open invoice that is not charged, by lines; none of any other."""
    invoice = Invoice.objects.filter(id=invoice_id, status=Invoice.Status.OPEN).first()
    day = due_at(invoice) if invoice is not None else None
    if invoice is None or day is None:
        return []
    method = terms_of(invoice.id).method
    if method == Method.CHARGE:
        return []
    said = [f"Due on {day.day} {day:%b %Y}."]
    arrived = recorded_minor(invoice.id)
    if arrived:
        left = amounts.minor(left_minor(invoice), invoice.currency)
        said.append(f"{amounts.minor(arrived, invoice.currency)} arrived; {left} is left to pay.")
    if method == Method.MANUAL:
        said.append(f"Please transfer it, naming {invoice.number}:")
        said += settings.SELLER_BANK_DETAILS.splitlines()
    elif invoice.hosted_url:
        said.append(f"Pay online: {invoice.hosted_url}")
    return said


def _overdue() -> "QuerySet[Invoice]":
    return Invoice.objects.filter(
        dunning_case__closed_at__isnull=True, dunning_case__isnull=False
    ).select_related("dunning_case")


def _owed(invoice: Invoice) -> Owed:
    is_open = invoice.status == Invoice.Status.OPEN
    act = next_act(steps_ahead(invoice)) if is_open else None
    return Owed(
        invoice_id=invoice.id,
        number=invoice.number or "",
        currency=invoice.currency,
        left_minor=left_minor(invoice),
        overdue_at=invoice.dunning_case.overdue_at,
        why=why(invoice),
        next_act=AHEAD[act.kind] if act else "",
        next_at=act.due_at if act else None,
        pay_url=pay_url(invoice),
        is_by_hand=terms_of(invoice.id).method == Method.MANUAL,
    )
