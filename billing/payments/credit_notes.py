"""Issue our credit notes at the provider, one there for one of ours, of the same cents.

Of an invoice that is open there a note lowers what it asks for, before anybody is charged (`run`).
What meets an invoice that is paid goes back to the card that was charged; what no charge stands
for, and what is kept as purchased credit, is settled outside the provider. Somebody may pay while
a note is on its way: the provider then refuses it, and it is made anew from what is true now.

Each line is the line it is of there, taxes too; what has no line of its own there, as where many
were summed, is one line of the note's. A note in which credit comes back has lines below zero,
which a credit note there cannot have: it is one line of its total.

Afterwards what is there is read and compared. A difference parks the invoice: nothing is guessed.
"""

from datetime import datetime
from uuid import UUID

from billing.invoicing.models import CreditNote, CreditNoteLine, CreditNoteTax, Invoice
from billing.payments import steps
from billing.payments.correction_port import NoteLine, NoteOrder, ProviderNote
from billing.payments.mirror import mirror, park
from billing.payments.models import PaymentRun, PaymentStep
from billing.payments.provider import PaymentProvider, ProviderInvoice, ProviderRefused
from billing.payments.refunds import mirror_refunds
from meterplane.kernel.limits import INVOICE_LINES_MAX
from tenants.scoping import tenant_scope

TRIES = 3  # each from what is true then
_HAS_NOTES = (Invoice.Status.OPEN, Invoice.Status.PAID, Invoice.Status.UNCOLLECTIBLE)


class NoteDiffers(Exception):
    """What stands there is not what we issued, or was refused. A person must look."""


def issue(tenant_id: UUID, note_id: UUID, provider: PaymentProvider) -> None:
    """Issue one note, and apply what it made of the invoice; a difference parks that.

    Raises `WorldError` when the provider is away: call again later.
    """
    with tenant_scope(tenant_id):
        note: CreditNote = CreditNote.objects.get(id=note_id)
        run: PaymentRun = PaymentRun.objects.get(invoice_id=note.invoice_id)
        # Until all is applied it is not done: whoever dies in between is followed by a run.
        Invoice.objects.filter(id=note.invoice_id, collection_state=Invoice.Collection.DONE).update(
            collection_state=Invoice.Collection.PENDING
        )
    try:
        send_note(tenant_id, note, run, provider)
        mirror(tenant_id, run.invoice_id, provider.invoice(str(run.provider_invoice_id)))
    except NoteDiffers as difference:
        park(tenant_id, run.invoice_id, str(difference))


def waiting(invoice_id: UUID) -> list[CreditNote]:
    """The notes of an invoice that are not at its provider, oldest first. Needs the door."""
    done = PaymentStep.objects.filter(
        kind=PaymentStep.Kind.CREDIT_NOTE, state=PaymentStep.State.DONE
    ).values("subject_id")
    notes = CreditNote.objects.filter(invoice_id=invoice_id, total_minor__gt=0)
    return list(notes.exclude(id__in=done).order_by("created_at", "number"))


def send_note(
    tenant_id: UUID, note: CreditNote, run: PaymentRun, provider: PaymentProvider
) -> bool:
    """Issue the note; False where the invoice there takes none: it is void, or not issued yet.

    Raises `NoteDiffers`, and what `PaymentProvider.send` raises but for refusals.
    """
    their_id = str(run.provider_invoice_id)
    theirs = provider.invoice(their_id)
    if theirs.status not in _HAS_NOTES:
        return False

    def issued(_since: datetime) -> str | None:
        found = _ours(provider, their_id, note)
        return found.provider_note_id if found is not None else None

    refused: ProviderRefused | None = None
    for _ in range(TRIES):
        with tenant_scope(tenant_id):
            known = PaymentStep.objects.filter(subject_id=note.id).order_by("-revision").first()
        if known is None or known.state == PaymentStep.State.FAILED:
            order = _order(tenant_id, note, theirs, provider)
            with tenant_scope(tenant_id):
                known = steps.freeze(
                    tenant_id,
                    None,
                    PaymentStep.Kind.CREDIT_NOTE,
                    provider.credit_note_parameters(order),
                    subject_id=note.id,
                )
        try:
            steps.perform(tenant_id, known.id, provider, target_id="", recover=issued)
        except ProviderRefused as no:
            refused, theirs = no, provider.invoice(their_id)
            continue
        _compare(note, _ours(provider, their_id, note))
        mirror_refunds(tenant_id, run.invoice_id, provider)
        return True
    assert refused is not None
    raise NoteDiffers(
        f"The provider refused credit note {note.number} ({refused.code}): {refused.message}"
    )


def _ours(provider: PaymentProvider, their_id: str, note: CreditNote) -> ProviderNote | None:
    for found in provider.credit_notes(their_id):
        if found.our_note_id == str(note.id) and not found.is_void:
            return found
    return None


def _compare(note: CreditNote, found: ProviderNote | None) -> None:
    if found is None:
        raise NoteDiffers(f"Credit note {note.number} is not there, or void.")
    compared = (
        ("currency", note.currency, found.currency),
        ("total", str(note.total_minor), str(found.total_minor)),
    )
    differ = [
        f"{what}: ours {ours}, theirs {other}" for what, ours, other in compared if ours != other
    ]
    if differ:
        raise NoteDiffers(f"Credit note {note.number} differs:\n" + "\n".join(differ))


def _order(
    tenant_id: UUID, note: CreditNote, theirs: ProviderInvoice, provider: PaymentProvider
) -> NoteOrder:
    """The note as it must be asked for now."""
    with tenant_scope(tenant_id):
        parts = _parts(note)
    their_id = theirs.provider_invoice_id
    remaining = 0 if theirs.status == Invoice.Status.PAID else theirs.amount_remaining_minor
    paid_back = max(0, note.total_minor - remaining)
    refund = 0
    if paid_back and note.effect != CreditNote.Effect.BALANCE:
        charge = provider.charge_of(their_id)
        refund = min(paid_back, charge.refundable_minor) if charge is not None else 0
    return NoteOrder(
        note_id=note.id,
        provider_invoice_id=their_id,
        number=note.number,
        reason=note.reason,
        memo=note.memo,
        lines=_lines(note, parts, {line.uid: line.line_id for line in provider.lines(their_id)}),
        refund_minor=refund,
        outside_minor=paid_back - refund,
    )


def _parts(note: CreditNote) -> list[tuple[str, int]]:
    """By the uid of the line at the provider: lines, and taxes on top, which are lines there."""
    lines = CreditNoteLine.objects.filter(note=note).order_by("position")
    taxes = CreditNoteTax.objects.filter(note=note, tax__mode="exclusive").order_by("tax__position")
    parts = [
        *lines.values_list("line_id", "amount_minor"),
        *taxes.values_list("tax_id", "amount_minor"),
    ]
    return [(str(uid), int(amount)) for uid, amount in parts if amount]


def _lines(note: CreditNote, parts: list[tuple[str, int]], there: dict[str, str]) -> list[NoteLine]:
    """Lines there that add up to the note."""
    own = f"Credit note {note.number}"
    is_whole = all(amount > 0 for _, amount in parts) and len(parts) < INVOICE_LINES_MAX
    if not is_whole:
        return [NoteLine("", own, int(note.total_minor))]
    lines = [NoteLine(there[uid], "", amount) for uid, amount in parts if there.get(uid)]
    rest = int(note.total_minor) - sum(line.amount_minor for line in lines)
    return [*lines, NoteLine("", own, rest)] if rest else lines
