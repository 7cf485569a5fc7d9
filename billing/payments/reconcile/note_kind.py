"""Credit notes: ours against those that the provider issued, by status and total.

One of ours is there once its step is done. One that is younger than a day may be on its way there,
and one of an invoice that takes none there, as it is void or was never brought, is not expected.
"""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from django.db.models import QuerySet

from billing.invoicing.models import CreditNote, Invoice
from billing.payments.correction_events import note_changed
from billing.payments.models import PaymentFinding, PaymentRun, PaymentStep
from billing.payments.provider import PaymentProvider
from billing.payments.reconcile.compare import Row
from billing.payments.reconcile.kind import BROUGHT_WITHIN, Kind, customers_of
from billing.payments.reconcile_port import TheirNote
from meterplane.kernel import clock
from tenants.scoping import system_scope

ISSUED, VOID = "issued", "void"  # ours are never void: what is wrong is corrected by another
_TAKES_NOTES = (Invoice.Status.OPEN, Invoice.Status.PAID, Invoice.Status.UNCOLLECTIBLE)


def credit_notes(provider: PaymentProvider) -> Kind:
    """Of theirs those are ours that say so, or whose customer is."""

    def made(start: datetime, end: datetime) -> list[Row]:
        found = provider.credit_notes_made(start, end)
        customers = customers_of(provider, {each.customer_id for each in found})
        return [_theirs(each) for each in found if each.our_id or each.customer_id in customers]

    def one(their_id: str) -> Row | None:
        their = provider.credit_note_made(their_id)
        return _theirs(their) if their is not None else None

    def own(their_ids: Collection[str]) -> list[Row]:
        with system_scope("our side of credit notes at the provider"):
            return _ours(_steps(provider).filter(result_id__in=their_ids))

    def own_made(start: datetime, end: datetime) -> list[Row]:
        with system_scope("our credit notes of a day"):
            issued = _steps(provider)
            late = CreditNote.objects.filter(
                created_at__gte=start,
                created_at__lt=min(end, clock.now() - BROUGHT_WITHIN),
                total_minor__gt=0,
                invoice__status__in=_TAKES_NOTES,
                invoice__payment_run__provider=provider.name,
                invoice__payment_run__provider_invoice_id__isnull=False,
            ).exclude(id__in=issued.values("subject_id"))
            return [
                *_ours(issued.filter(done_at__gte=start, done_at__lt=end)),
                *(_row(note, "") for note in late),
            ]

    def settle(their_id: str) -> object:
        their = provider.credit_note_made(their_id)
        return note_changed({"invoice": their.their_invoice_id}, provider) if their else None

    return Kind(PaymentFinding.Kind.CREDIT_NOTE, made, one, own, own_made, settle)


def _steps(provider: PaymentProvider) -> QuerySet[PaymentStep]:
    """Those that made a credit note there."""
    brought = PaymentRun.objects.filter(provider=provider.name).values("invoice_id")
    return PaymentStep.objects.filter(
        kind=PaymentStep.Kind.CREDIT_NOTE,
        state=PaymentStep.State.DONE,
        subject_id__in=CreditNote.objects.filter(invoice_id__in=brought).values("id"),
    )


def _ours(steps: QuerySet[PaymentStep]) -> list[Row]:
    their_ids: dict[UUID | None, str] = dict(steps.values_list("subject_id", "result_id"))
    notes = CreditNote.objects.filter(id__in=their_ids)
    return [_row(note, their_ids[note.id]) for note in notes]


def _row(note: CreditNote, their_id: str) -> Row:
    return Row(
        our_id=str(note.id),
        their_id=their_id,
        name=f"credit note {note.number}",
        status=ISSUED,
        currency=note.currency,
        amount_minor=note.total_minor,
        made_at=note.created_at,
    )


def _theirs(their: TheirNote) -> Row:
    return Row(
        our_id=their.our_id,
        their_id=their.their_id,
        name=f"credit note {their.number or their.their_id}",
        status=VOID if their.is_void else ISSUED,
        currency=their.currency,
        amount_minor=their.total_minor,
        made_at=their.made_at,
    )
