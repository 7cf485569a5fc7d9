"""Record invoices in the ledger, and say what must be there.

Guarantees: whatever an invoice's status calls for is posted in the transaction that moves it. All
of it is posted each time, not the last step alone: what is there already is found there, and an
invoice that was finalised before there was a ledger gets its first entry with its next step.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.db.models import Sum

from billing.invoicing.credit_back import given_back_by_account
from billing.invoicing.credit_entries import TaxPart, corrections, with_taxes
from billing.invoicing.credit_lines import GIVEN_BACK
from billing.invoicing.entries import KINDS, WRITTEN_OFF, Invoiced, added, entries_of
from billing.invoicing.models import CreditNote, Invoice, InvoiceLine, InvoiceTax
from billing.ledger.accounts import DEFERRED_REVENUE, revenue
from billing.ledger.post import post_entry
from billing.ledger.queries import entries_by_source
from billing.ledger.sources import Expected, Page, Source, Unclear
from meterplane.kernel import clock
from meterplane.kernel.invariant import InvariantBroken

INVOICES_PER_PAGE = 500


def record(invoice: Invoice, at: datetime, *, left: str) -> None:
    """Post what its status calls for, which it has since `at` and instead of the one it `left`.

    Needs the tenant's door.
    """
    parts = _parts([invoice.id])[invoice.id]
    was_written_off = left == Invoice.Status.UNCOLLECTIBLE
    for entry in entries_of(_invoiced(invoice, parts, at, was_written_off)):
        post_entry(entry)


def due_minor(invoice: Invoice) -> int:
    """What is to be paid of it, less what credit notes took. Needs the tenant's door."""
    parts = _parts([invoice.id])[invoice.id]
    return _invoiced(invoice, parts, clock.now(), was_written_off=False).due_minor


def overpaid_minor(invoice: Invoice) -> int:
    """What was paid of it beyond what was due. Needs the tenant's door."""
    parts = _parts([invoice.id])[invoice.id]
    return _invoiced(invoice, parts, clock.now(), was_written_off=False).overpaid_minor


def as_recorded(invoices: Sequence[Invoice]) -> dict[UUID, Invoiced]:
    """These invoices as the ledger sees them now. Needs a door to them all."""
    parts = _parts([invoice.id for invoice in invoices])
    return {
        invoice.id: _invoiced(invoice, parts[invoice.id], clock.now(), was_written_off=False)
        for invoice in invoices
    }


@dataclass(slots=True)
class _Parts:
    """Of an invoice: what its lines and taxes are by account, what credit pays of it, what it gives
    back of earlier ones' credit and later ones of its own, and what credit notes took from it
    while it was open."""

    earned: dict[str, int] = field(default_factory=dict)
    drawn_minor: int = 0
    given_back_minor: int = 0
    returned_minor: int = 0
    given_back: Mapping[str, int] = field(default_factory=dict)
    lowered: dict[str, int] = field(default_factory=dict)
    restored_minor: int = 0


def _parts(invoice_ids: Collection[UUID]) -> dict[UUID, _Parts]:
    rows = (
        InvoiceLine.objects.filter(invoice_id__in=invoice_ids)
        .order_by()
        .values_list("invoice_id", "invoice__kind", "kind", "meter")
        .annotate(sum=Sum("amount_minor"))
    )
    parts: dict[UUID, _Parts] = defaultdict(_Parts)
    taken_back: dict[UUID, dict[str, int]] = defaultdict(dict)
    for invoice_id, of, kind, meter, amount_minor in rows:
        if kind == InvoiceLine.Kind.CREDIT and meter == GIVEN_BACK:
            parts[invoice_id].given_back_minor = int(amount_minor)
        elif kind == InvoiceLine.Kind.CREDIT:
            parts[invoice_id].drawn_minor = -int(amount_minor)
        elif kind == InvoiceLine.Kind.INTERIM:
            taken_back[invoice_id] = {DEFERRED_REVENUE: int(amount_minor)}
        else:
            # An advance is no revenue yet; a discount, a minimum and the like are of no meter.
            is_advance = of == Invoice.Kind.INTERIM
            account = DEFERRED_REVENUE if is_advance else revenue(meter or kind)
            earned = parts[invoice_id].earned
            earned[account] = earned.get(account, 0) + int(amount_minor)
    for invoice_id, own in _taxes(invoice_ids, of_interims=False).items():
        parts[invoice_id].earned = with_taxes(parts[invoice_id].earned, own)
    taxes = _taxes(invoice_ids, of_interims=True)
    for invoice_id, back in taken_back.items():
        with_back = with_taxes(back, taxes.get(invoice_id, []))
        parts[invoice_id].earned = added(parts[invoice_id].earned, with_back)
    for invoice_id, by_account in given_back_by_account(invoice_ids).items():
        part = parts[invoice_id]
        part.given_back = by_account
        part.returned_minor = part.given_back_minor - sum(by_account.values())
    for corrected in corrections(CreditNote.objects.filter(invoice_id__in=invoice_ids)):
        if corrected.effect == CreditNote.Effect.LOWERS_DUE:
            part = parts[corrected.invoice_id]
            part.lowered = added(part.lowered, corrected.by_account)
            part.restored_minor += corrected.restored_minor
    return parts


def _taxes(invoice_ids: Collection[UUID], *, of_interims: bool) -> dict[UUID, list[TaxPart]]:
    """Their own, or those of interim invoices that they take back."""
    rows = InvoiceTax.objects.filter(
        invoice_id__in=invoice_ids, interim_id__isnull=not of_interims
    ).order_by("invoice_id", "position")
    taxes: dict[UUID, list[TaxPart]] = defaultdict(list)
    for row in rows:
        taxes[row.invoice_id].append(TaxPart(row.name, row.mode, row.amount_minor))
    return taxes


def _invoiced(
    invoice: Invoice, parts: _Parts, moved_at: datetime, was_written_off: bool
) -> Invoiced:
    return Invoiced(
        id=invoice.id,
        name=f"Invoice {invoice.number}",
        status=invoice.status,
        currency=invoice.currency,
        total_minor=invoice.total_minor,
        earned=parts.earned,
        finalised_at=invoice.finalised_at,
        paid_at=invoice.paid_at,
        moved_at=moved_at,
        was_written_off=was_written_off,
        paid_minor=invoice.paid_minor,
        paid_in_parts=invoice.paid_in_parts,
        drawn_minor=parts.drawn_minor,
        given_back_minor=parts.given_back_minor,
        given_back=parts.given_back,
        returned_minor=parts.returned_minor,
        lowered=parts.lowered,
        restored_minor=parts.restored_minor,
    )


def _page(after: UUID | None) -> Page:
    """Of every tenant's invoices, what the ledger must hold.

    When an old invoice was voided or written off is written nowhere but in its entry. If there is
    none, it is entered as of now: a month that is over keeps the figures it was told with.
    """
    waiting = (Invoice.Status.DRAFT, Invoice.Status.FINALISING)
    rows = Invoice.objects.exclude(status__in=waiting).order_by("id")
    if after is not None:
        rows = rows.filter(id__gt=after)
    invoices = list(rows[:INVOICES_PER_PAGE])
    parts = _parts([invoice.id for invoice in invoices])
    written_off = entries_by_source({WRITTEN_OFF}, {str(invoice.id) for invoice in invoices})
    expected, unclear = list[Expected](), list[Unclear]()
    for invoice in invoices:
        was_written_off = (invoice.tenant_id, str(invoice.id)) in written_off
        seen = _invoiced(invoice, parts[invoice.id], clock.now(), was_written_off)
        try:
            expected += [Expected(invoice.tenant_id, entry) for entry in entries_of(seen)]
        except InvariantBroken as broken:  # it was tampered with: named, and the others are read
            unclear.append(Unclear(invoice.tenant_id, f"invoice {invoice.id}", str(broken)))
    is_last = len(invoices) < INVOICES_PER_PAGE
    return Page(tuple(expected), None if is_last else invoices[-1].id, tuple(unclear))


INVOICES = Source("invoices", "every invoice, payment, void and write-off", KINDS, _page)
