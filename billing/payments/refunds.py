"""Money paid back: asked for by an operator, or read at the provider; each a row and its entry.

Guarantees: what an operator asks for is a row, and then a frozen step before it is sent, so that it
is paid back once. `mirror_refunds` reads every refund of an invoice's payment, also those that a
credit note made and those of the provider's own pages, and gives each one row; read in any order,
any number of times, the end is the same. The entry is posted with the row, and reversed when the
refund fails.

What a refund is taken from is decided once, when its row is made: of a credit note, from what the
note said would be paid back, or from what was paid beyond what it left due; any other first from
what is still to be paid back of that invoice, then from what was paid too much for it. Nothing
stands for the rest: no invoice is corrected by it, and its taxes are not; a credit note does that.
"""

import logging
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import Sum

from billing.invoicing.models import CreditNote, Invoice
from billing.invoicing.record import overpaid_minor
from billing.ledger.post import post_entry
from billing.payments import steps
from billing.payments.correction_port import ProviderNote, ProviderRefund, RefundOrder
from billing.payments.disputed import held_back, taken_of_invoice
from billing.payments.models import PaymentRun, PaymentStep, Refund
from billing.payments.provider import PaymentProvider, ProviderRefused
from billing.payments.refund_entries import entries_of_refund
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import minor_to_text
from tenants.scoping import tenant_scope

log = logging.getLogger(__name__)

REASON_CHARS_MAX = 200
KEY_CHARS_MAX = 100
State, Origin = Refund.State, Refund.Origin
_GONE = (State.FAILED, State.REFUSED)


def ask(invoice_id: UUID, *, amount_minor: int | None, reason: str, idempotency_key: str) -> Refund:
    """Ask for so much of an invoice's payment to go back; without an amount, all that is left.

    The sweep sends it (`send`). The same key asks once. Needs the tenant's door. Raises
    `CallerError`: `invoice_not_found`, `invoice_not_paid`, `payment_disputed`,
    `nothing_to_refund`, `refund_exceeds_payment`, `reason_invalid`, `idempotency_key_invalid`,
    `idempotency_conflict`.
    """
    _check_asked(reason, idempotency_key)
    with transaction.atomic():
        invoice = Invoice.objects.select_for_update().filter(id=invoice_id).first()
        if invoice is None:
            raise CallerError("invoice_not_found", "There is no such invoice.", status=404)
        known = Refund.objects.filter(idempotency_key=idempotency_key).first()
        if known is not None:
            return _same(known, invoice_id, amount_minor)
        run = PaymentRun.objects.filter(invoice_id=invoice_id).first()
        if invoice.status != Invoice.Status.PAID or run is None or not run.provider_invoice_id:
            raise CallerError(
                "invoice_not_paid",
                "Only what was paid at the provider goes back there.",
                status=409,
            )
        if held_back(invoice_id):
            raise CallerError(
                "payment_disputed",
                "This payment is disputed at the customer's bank: nothing of it can be paid back"
                " beside that.",
                status=409,
            )
        asked = _within(invoice, amount_minor)
        owed, balance = taken_from(invoice, asked)
        refund: Refund = Refund.objects.create(
            tenant_id=invoice.tenant_id,
            invoice=invoice,
            provider=run.provider,
            origin=Origin.OPERATOR,
            state=State.ASKED,
            currency=invoice.currency,
            amount_minor=asked,
            owed_minor=owed,
            balance_minor=balance,
            reason=reason.strip(),
            idempotency_key=idempotency_key,
        )
    return refund


def send(tenant_id: UUID, refund_id: UUID, provider: PaymentProvider) -> Refund:
    """Send a refund that was asked for, and read what became of it.

    Raises `WorldError` when the provider is away; a definite no is written on the refund.
    """
    with tenant_scope(tenant_id):
        refund: Refund = Refund.objects.get(id=refund_id)
        run: PaymentRun = PaymentRun.objects.get(invoice_id=refund.invoice_id)
    if refund.state != State.ASKED:
        return refund
    if not refund.payment_intent_id:
        charge = provider.charge_of(str(run.provider_invoice_id))
        if charge is None:
            return _refused(tenant_id, refund_id, "It was not paid with a charge.")
        refund = _freeze(tenant_id, refund_id, charge.payment_intent_id, provider)

    def made(_since: datetime) -> str | None:
        found = provider.refunds(refund.payment_intent_id)
        ours = [each for each in found if each.our_refund_id == str(refund_id)]
        return ours[0].provider_refund_id if ours else None

    step = _step_of(tenant_id, refund_id)
    if step.state != PaymentStep.State.FAILED:
        try:
            steps.perform(tenant_id, step.id, provider, target_id="", recover=made)
        except ProviderRefused as refused:
            log.warning("refund %s was refused: %s", refund_id, refused.code)
    mirror_refunds(tenant_id, refund.invoice_id, provider)
    step = _step_of(tenant_id, refund_id)
    if step.state == PaymentStep.State.FAILED:
        return _refused(tenant_id, refund_id, step.note)
    with tenant_scope(tenant_id):
        now: Refund = Refund.objects.get(id=refund_id)
    return now


def _freeze(tenant_id: UUID, refund_id: UUID, intent_id: str, provider: PaymentProvider) -> Refund:
    """Which payment it is of, and what will be sent, before anything is."""
    with tenant_scope(tenant_id), transaction.atomic():
        refund: Refund = Refund.objects.select_for_update().get(id=refund_id)
        if not refund.payment_intent_id:
            refund.payment_intent_id = intent_id
            refund.save(update_fields=["payment_intent_id"])
        order = RefundOrder(refund.id, refund.payment_intent_id, refund.amount_minor, refund.reason)
        parameters = provider.refund_parameters(order)
        steps.freeze(tenant_id, None, PaymentStep.Kind.REFUND, parameters, subject_id=refund.id)
    return refund


def _step_of(tenant_id: UUID, refund_id: UUID) -> PaymentStep:
    with tenant_scope(tenant_id):
        steps_of = PaymentStep.objects.filter(subject_id=refund_id, kind=PaymentStep.Kind.REFUND)
        newest: PaymentStep = steps_of.order_by("-revision")[0]
    return newest


def _refused(tenant_id: UUID, refund_id: UUID, why: str) -> Refund:
    with tenant_scope(tenant_id):
        Refund.objects.filter(id=refund_id, state=State.ASKED).update(
            state=State.REFUSED, failure=why[:300]
        )
        refund: Refund = Refund.objects.get(id=refund_id)
    return refund


def mirror_refunds(tenant_id: UUID, invoice_id: UUID, provider: PaymentProvider) -> int:
    """Read every refund of an invoice's payment and apply what it is now; how many there are."""
    with tenant_scope(tenant_id):
        run: PaymentRun = PaymentRun.objects.get(invoice_id=invoice_id)
    charge = provider.charge_of(str(run.provider_invoice_id))
    if charge is None:
        return 0
    notes = provider.credit_notes(str(run.provider_invoice_id))
    theirs = provider.refunds(charge.payment_intent_id)
    with tenant_scope(tenant_id), transaction.atomic():
        invoice = Invoice.objects.select_for_update().get(id=invoice_id)
        of_notes = _by_note(notes)
        # What a note promised is taken by its own refund before another could take it.
        for found in sorted(theirs, key=lambda each: each.provider_refund_id not in of_notes):
            note = of_notes.get(found.provider_refund_id)
            refund = _row(invoice, provider.name, found, note)
            _advance(refund, found)
            for entry in entries_of_refund(refund):
                post_entry(entry)
    return len(theirs)


def _row(invoice: Invoice, provider: str, found: ProviderRefund, note: CreditNote | None) -> Refund:
    """The refund's row, made if it has none yet."""
    rows = Refund.objects.select_for_update()
    known: Refund | None = rows.filter(
        provider=provider, provider_refund_id=found.provider_refund_id
    ).first()
    if known is None and found.our_refund_id:
        known = rows.filter(id=found.our_refund_id, invoice_id=invoice.id).first()
    if known is not None:
        return known
    owed, balance = taken_from(invoice, found.amount_minor, note)
    return Refund(
        tenant_id=invoice.tenant_id,
        invoice=invoice,
        note=note,
        provider=provider,
        payment_intent_id=found.payment_intent_id,
        origin=Origin.NOTE if note is not None else Origin.PROVIDER,
        state=State.ASKED,
        currency=found.currency,
        amount_minor=found.amount_minor,
        owed_minor=owed,
        balance_minor=balance,
        reason=f"Credit note {note.number}" if note is not None else "",
    )


def _advance(refund: Refund, found: ProviderRefund) -> None:
    """Forward only: a failed refund stays failed, one that succeeded is not pending again."""
    refund.provider_refund_id = found.provider_refund_id
    if refund.state in _GONE or refund.state == found.state:
        return
    if (refund.state, found.state) == (State.SUCCEEDED, State.PENDING):
        return
    now = clock.now()
    refund.made_at = refund.made_at or now
    refund.state = found.state
    if found.state == State.FAILED:
        refund.failed_at, refund.failure = now, found.failure[:300]
    refund.save()


def _within(invoice: Invoice, amount_minor: int | None) -> int:
    """The amount, if so much of the payment is left, as far as we know."""
    paid = invoice.total_minor if invoice.paid_minor is None else invoice.paid_minor
    left = paid - _sum(invoice.id, "amount_minor") - taken_of_invoice(invoice.id).gone_minor
    if left <= 0:
        raise CallerError(
            "nothing_to_refund", "Nothing of this payment is left to pay back.", status=409
        )
    asked = left if amount_minor is None else amount_minor
    if not 0 < asked <= left:
        raise CallerError(
            "refund_exceeds_payment",
            f"Of this payment {minor_to_text(left, invoice.currency)} {invoice.currency} is"
            " left to pay back.",
            status=409,
            field="amount",
        )
    return int(asked)


def taken_from(
    invoice: Invoice, amount_minor: int, note: CreditNote | None = None
) -> tuple[int, int]:
    """What of it had been said to be paid back, and what had been paid too much.

    What went back to the customer through a dispute that was lost is paid back too.
    """
    if note is not None and note.effect == CreditNote.Effect.REFUND:
        return amount_minor, 0
    owed, lost = 0, taken_of_invoice(invoice.id)
    if note is None:
        promised = _promised(invoice.id) - _sum(invoice.id, "owed_minor") - lost.owed_minor
        owed = max(0, min(amount_minor, promised))
    over = overpaid_minor(invoice) - _sum(invoice.id, "balance_minor") - lost.balance_minor
    return owed, max(0, min(amount_minor - owed, over))


def _promised(invoice_id: UUID) -> int:
    """What notes that are at the provider said would be paid back."""
    issued = PaymentStep.objects.filter(
        kind=PaymentStep.Kind.CREDIT_NOTE, state=PaymentStep.State.DONE
    ).values("subject_id")
    notes = CreditNote.objects.filter(
        invoice_id=invoice_id, effect=CreditNote.Effect.REFUND, id__in=issued
    )
    return int(notes.aggregate(sum=Sum("total_minor"))["sum"] or 0)


def _sum(invoice_id: UUID, column: str) -> int:
    rows = Refund.objects.filter(invoice_id=invoice_id).exclude(state__in=_GONE)
    return int(rows.aggregate(sum=Sum(column))["sum"] or 0)


def _by_note(notes: Sequence[ProviderNote]) -> dict[str, CreditNote]:
    """Our note by the refund that it made there."""
    ours = {str(note.id): note for note in CreditNote.objects.filter(
        id__in=[note.our_note_id for note in notes if note.our_note_id]
    )}  # fmt: skip
    return {
        refund_id: ours[note.our_note_id]
        for note in notes
        if note.our_note_id in ours
        for refund_id in note.refund_ids
    }


def _check_asked(reason: str, idempotency_key: str) -> None:
    if not reason.strip() or len(reason) > REASON_CHARS_MAX or "\x00" in reason:
        raise CallerError(
            "reason_invalid", f"Say why, in 1 to {REASON_CHARS_MAX} characters.", field="reason"
        )
    if not idempotency_key.strip() or len(idempotency_key) > KEY_CHARS_MAX:
        raise CallerError(
            "idempotency_key_invalid",
            f"Name what you ask by a key of 1 to {KEY_CHARS_MAX} characters: asked again, it is"
            " done once.",
            field="idempotency_key",
        )


def _same(known: Refund, invoice_id: UUID, amount_minor: int | None) -> Refund:
    if known.invoice_id != invoice_id or amount_minor not in (None, known.amount_minor):
        raise CallerError(
            "idempotency_conflict",
            "This key asked for another refund.",
            status=409,
            field="idempotency_key",
        )
    return known
