"""Disputed payments: each dispute as it is at the provider, what it moved, and what comes of that.

Guarantees. An event is a hint: the dispute is read again, and applied forward only. However often,
late and in whichever order one hears of it, and wherever this is killed, it ends in one state:
each transaction of the provider's is written once, and the rest follows from what is written.

    money is taken away     `disputed` holds it; unspent credit that it bought is taken back, and
                            auto-reload buys no more until a person or another card says so
    it is given back        it is ours again, and so is the credit
    the dispute is lost     what is still held is a loss, less what we owed that customer anyway
    lost, given back later  that much of the loss is undone

An invoice whose payment is lost stays paid: what was used was used, and the customer has been told
that it is settled. To ask for it again is a person's decision, and another invoice's.

A dispute whose payment is not in our books is parked with the reason, told, and looked at again.
"""

import logging
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from billing.credits.dispute import give_back_disputed, take_disputed
from billing.credits.models import CreditMovement
from billing.invoicing.models import Invoice
from billing.ledger.post import post_entry
from billing.payments.dispute_entries import entry_of_movement
from billing.payments.dispute_models import OVER, RANK
from billing.payments.dispute_payment import Payment, payment_of
from billing.payments.dispute_port import ProviderDispute
from billing.payments.disputed import SIGN, sums_by_kind
from billing.payments.models import Dispute, DisputeMovement, TopUp
from billing.payments.provider import PaymentProvider, ProviderRefused
from billing.payments.refunds import taken_from
from billing.payments.top_ups import pause_auto_reload
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from meterplane.kernel.money import minor_to_text
from tenants.scoping import system_scope, tenant_scope

log = logging.getLogger(__name__)

LOOK_AGAIN_EVERY = timedelta(hours=6)
LOOKED_AT_AFTER_ITS_END = timedelta(days=30)  # money may be given back later than it is decided
LEFT_MAX = 200
_K = DisputeMovement.Kind


def mirror_dispute(their_id: str, provider: PaymentProvider) -> str:
    """Read a dispute again and apply what it is now; what came of it, in words for an operator.

    Raises `WorldError` when the provider is away.
    """
    try:
        theirs = provider.dispute(their_id)
        if theirs.status not in RANK:
            log.error("dispute %s has a status that is not known: %s", their_id, theirs.status)
            return f"not applied: the status {theirs.status} is not known"
        dispute = _known(theirs, provider) or _new(theirs, provider)
    except ProviderRefused as refused:
        return f"cannot be read: {refused.code}"
    if dispute.tenant_id is None:
        return f"parked: {dispute.note}"
    with tenant_scope(dispute.tenant_id):
        moved = _apply(dispute.id, theirs)
    return f"dispute {theirs.status}{'' if moved else ', as known'}"


def left(now: datetime) -> list[str]:
    """Their ids of disputes nobody told of for a while, the one looked at longest ago first."""
    with system_scope("the sweep looks for disputes nobody told of"):
        rows = Dispute.objects.filter(
            Q(closed_at=None) | Q(closed_at__gt=now - LOOKED_AT_AFTER_ITS_END),
            checked_at__lt=now - LOOK_AGAIN_EVERY,
        )
        ids = rows.order_by("checked_at").values_list("provider_dispute_id", flat=True)
        return list(ids[:LEFT_MAX])


def _known(theirs: ProviderDispute, provider: PaymentProvider) -> Dispute | None:
    """The row, if there is one; a parked one is looked at anew."""
    key = {"provider": provider.name, "provider_dispute_id": theirs.provider_dispute_id}
    with system_scope("which dispute an event is about"):
        dispute: Dispute | None = Dispute.objects.filter(**key).first()
    if dispute is None or not dispute.is_parked:
        return dispute
    found = payment_of(theirs, provider)
    with system_scope("a dispute whose payment was not known"):
        dispute = Dispute.objects.select_for_update().get(id=dispute.id)
        if dispute.is_parked:
            _is_of(dispute, found)
            _advance(dispute, theirs)
            dispute.save()
    return dispute


def _new(theirs: ProviderDispute, provider: PaymentProvider) -> Dispute:
    """A row for it: told once, by whoever makes it."""
    found = payment_of(theirs, provider)
    row = Dispute(
        provider=provider.name,
        provider_dispute_id=theirs.provider_dispute_id,
        charge_id=theirs.charge_id,
        payment_intent_id=theirs.payment_intent_id,
        currency=theirs.currency,
        reason=theirs.reason[:64],
        status=theirs.status,
        opened_at=theirs.opened_at,
    )
    _is_of(row, found)
    _advance(row, theirs)
    names = [field.attname for field in Dispute._meta.concrete_fields if field.attname != "id"]
    with system_scope("a dispute is written down"):
        dispute: Dispute
        dispute, is_new = Dispute.objects.get_or_create(
            provider=row.provider,
            provider_dispute_id=row.provider_dispute_id,
            defaults={"id": row.id, **{name: getattr(row, name) for name in names}},
        )
    if is_new:
        amount = f"{minor_to_text(theirs.amount_minor, theirs.currency)} {theirs.currency}"
        log.error(
            "dispute %s of %s was opened (%s); answer by %s. %s",
            theirs.provider_dispute_id, amount, theirs.reason, theirs.evidence_due_at, row.note,
        )  # fmt: skip
    return dispute


def _is_of(dispute: Dispute, found: Payment | str) -> None:
    if isinstance(found, str):
        dispute.note = found[:300]
        return
    dispute.tenant_id, dispute.note = found.tenant_id, ""
    dispute.invoice_id, dispute.top_up_id = found.invoice_id, found.top_up_id


def _advance(dispute: Dispute, theirs: ProviderDispute) -> bool:
    """Forward only; True if its status moved."""
    dispute.checked_at = clock.now()
    if RANK[theirs.status] < RANK[dispute.status]:
        return False
    moved = dispute.status != theirs.status
    dispute.status, dispute.amount_minor = theirs.status, theirs.amount_minor
    dispute.evidence_due_at, dispute.has_evidence = theirs.evidence_due_at, theirs.has_evidence
    if theirs.status not in OVER:
        dispute.closed_at = None
    elif dispute.closed_at is None:
        dispute.closed_at = dispute.checked_at
    return moved


@transaction.atomic
def _apply(dispute_id: UUID, theirs: ProviderDispute) -> bool:
    """True if anything moved: its status, or money. Needs the tenant's door."""
    of_invoice = Dispute.objects.values_list("invoice_id", flat=True).get(id=dispute_id)
    # In the order of everybody's locks: the invoice, the dispute, credit, the ledger.
    invoice = None
    if of_invoice is not None:
        invoice = Invoice.objects.select_for_update().get(id=of_invoice)
    dispute, others = _locked(dispute_id)
    moved = _advance(dispute, theirs)
    dispute.save()
    made = _come_of(dispute, invoice, theirs)
    for other in others:
        _come_of(other, None)
    if dispute.top_up_id is not None and _K.WITHDRAWN in [row.kind for row in made]:
        # Or the credit that is gone would be bought again, from the card whose holder disputes.
        pause_auto_reload("A payment for credit is disputed at the bank that it came from.")
    return moved or bool(made)


def _locked(dispute_id: UUID) -> tuple[Dispute, list[Dispute]]:
    """The dispute and the others of its top-up: what one gives back to it, another may take."""
    top_up = Dispute.objects.filter(id=dispute_id, top_up__isnull=False).values("top_up")
    which = Q(id=dispute_id) | Q(top_up__in=top_up)
    rows = list(Dispute.objects.select_for_update().filter(which).order_by("id"))
    dispute = next(row for row in rows if row.id == dispute_id)
    return dispute, [row for row in rows if row is not dispute]


def _come_of(
    dispute: Dispute, invoice: Invoice | None, theirs: ProviderDispute | None = None
) -> list[DisputeMovement]:
    """Write what follows now, and return that."""
    known = list(dispute.movements.all())
    before = len(known)
    if theirs is not None:
        _transactions(dispute, theirs, known)
    if dispute.top_up_id is not None:
        _credit(dispute, known)
    _settle(dispute, invoice, known)
    for row in known[before:]:
        entry = entry_of_movement(row)
        if entry is not None:
            post_entry(entry)
    return known[before:]


def _transactions(dispute: Dispute, theirs: ProviderDispute, known: list[DisputeMovement]) -> None:
    """What the provider moved, and its fees, each once."""
    have = {(row.provider_transaction_id, row.kind) for row in known}
    for each in theirs.transactions:
        moved = theirs.moved_minor(each)
        facts = (
            (_K.WITHDRAWN if moved < 0 else _K.REINSTATED, theirs.currency, moved),
            (_K.FEE_CHARGED if each.fee_minor > 0 else _K.FEE_RETURNED, each.currency,
             each.fee_minor),
        )  # fmt: skip
        for kind, currency, amount_minor in facts:
            if amount_minor and (each.transaction_id, kind) not in have:
                known.append(
                    _write(
                        dispute,
                        kind,
                        abs(amount_minor),
                        currency=currency,
                        provider_transaction_id=each.transaction_id,
                        at=each.at,
                    )
                )


def _credit(dispute: Dispute, known: list[DisputeMovement]) -> None:
    """Of the credit that was bought, no more is taken than was taken of its payment."""
    sums = sums_by_kind(known)
    gone = sums[_K.WITHDRAWN] - sums[_K.REINSTATED]
    wanted = gone - (sums[_K.CREDIT_TAKEN] - sums[_K.CREDIT_RETURNED])
    grant_id = TopUp.objects.values_list("grant_id", flat=True).get(id=dispute.top_up_id)
    movement_id = uuid7()
    if wanted > 0:
        taken = take_disputed(grant_id, most_minor=wanted, source_id=movement_id)
        if taken:
            known.append(_write(dispute, _K.CREDIT_TAKEN, taken, id=movement_id))
    elif wanted < 0:
        give_back_disputed(grant_id, amount_minor=-wanted, source_id=movement_id)
        known.append(_write(dispute, _K.CREDIT_RETURNED, -wanted, id=movement_id))


def _settle(dispute: Dispute, invoice: Invoice | None, known: list[DisputeMovement]) -> None:
    """Lost: what is still held is gone. What came back after that is no loss any more."""
    held = sum(SIGN.get(_K(row.kind), 0) * row.amount_minor for row in known)
    if held > 0 and dispute.status == Dispute.Status.LOST:
        owed, balance = _owed_anyway(dispute, invoice, held)
        row = _write(dispute, _K.LOST, held, owed_minor=owed, balance_minor=balance)
        known.append(row)
    elif held < 0:
        owed, balance = _undone(known, -held)
        row = _write(dispute, _K.RECOVERED, -held, owed_minor=owed, balance_minor=balance)
        known.append(row)


def _owed_anyway(dispute: Dispute, invoice: Invoice | None, lost_minor: int) -> tuple[int, int]:
    """What of it we had said we would pay back, and what had been paid too much."""
    if invoice is not None:
        return taken_from(invoice, lost_minor)
    of_grant = Q(grant_id=TopUp.objects.get(id=dispute.top_up_id).grant_id)
    promised = CreditMovement.objects.filter(of_grant, kind=CreditMovement.Kind.REFUNDED).first()
    rows = DisputeMovement.objects.filter(dispute__top_up_id=dispute.top_up_id)
    kept = sum(row.owed_minor * -SIGN.get(_K(row.kind), 0) for row in rows)
    owed = max(0, (promised.amount_minor if promised is not None else 0) - kept)
    return min(lost_minor, owed), 0


def _undone(known: list[DisputeMovement], back_minor: int) -> tuple[int, int]:
    """Our loss is undone first; what is left of it is owed again as it was."""
    lost = [(1 if row.kind == _K.LOST else -1, row) for row in known if row.kind in _LOSSES]
    loss = sum(sign * row.loss_minor for sign, row in lost)
    balance = sum(sign * row.balance_minor for sign, row in lost)
    owed = sum(sign * row.owed_minor for sign, row in lost)
    balance_back = min(balance, max(0, back_minor - loss))
    return min(owed, max(0, back_minor - loss - balance_back)), balance_back


_LOSSES = (_K.LOST, _K.RECOVERED)


def _write(dispute: Dispute, kind: str, amount_minor: int, **of: object) -> DisputeMovement:
    values = {"currency": dispute.currency, "at": clock.now(), **of}
    row: DisputeMovement = DisputeMovement.objects.create(
        tenant_id=dispute.tenant_id, dispute=dispute, kind=kind, amount_minor=amount_minor, **values
    )
    return row
