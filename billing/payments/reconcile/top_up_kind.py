"""Credit paid ahead: our top-ups against the payments there that no invoice stands for.

A payment of a checkout is known here by the checkout's id, that of a charge by its own. A second
payment of one top-up, and one of a customer of ours that is of neither, are told: somebody paid,
and our books do not have it.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Q

from billing.payments.models import PaymentFinding, TopUp
from billing.payments.provider import PaymentProvider, ProviderRefused
from billing.payments.reconcile.compare import Row
from billing.payments.reconcile.kind import Kind, customers_of
from billing.payments.reconcile_port import TheirIntent
from billing.payments.top_ups import settle_top_up
from tenants.scoping import system_scope

_State = TopUp.State
PAID = str(_State.PAID)
CHECKOUT = "cs_"
# An invoice is finalised, and gets its payment, before that is paid.
FINALISED_BEFORE = timedelta(days=1)


def top_ups(provider: PaymentProvider) -> Kind:
    """Of theirs those are ours that say so, and those of our customers that no invoice has."""

    def made(start: datetime, end: datetime) -> list[Row]:
        found = provider.intents_paid(start, end)
        customers = customers_of(provider, {each.customer_id for each in found})
        ours = [each for each in found if each.our_id or each.customer_id in customers]
        if not ours:
            return []
        paid = provider.payments_made(start - FINALISED_BEFORE, end)
        of_invoices = {payment.intent_id for payment in paid}
        alone = [
            each
            for each in ours
            if each.intent_id not in of_invoices
            and (each.our_id or provider.invoice_of_payment(each.intent_id) is None)
        ]
        taken = _at_checkouts(alone)
        return [_theirs(each, taken.get(each.intent_id, each.intent_id)) for each in alone]

    def one(their_id: str) -> Row | None:
        intent_id = their_id
        if their_id.startswith(CHECKOUT):
            try:
                intent_id = provider.checkout(their_id).intent_id
            except ProviderRefused:
                return None
        their = provider.intent_paid(intent_id) if intent_id else None
        return _theirs(their, their_id) if their is not None else None

    def own(their_ids: Collection[str]) -> list[Row]:
        return _ours(Q(payment_id__in=their_ids))

    def own_made(start: datetime, end: datetime) -> list[Row]:
        return _ours(Q(state=_State.PAID, settled_at__gte=start, settled_at__lt=end))

    def settle(their_id: str) -> object:
        with system_scope("whose top-up a payment is of"):
            found = TopUp.objects.filter(payment_id=their_id).first()
        return settle_top_up(found.tenant_id, found.id, provider) if found else None

    return Kind(PaymentFinding.Kind.TOP_UP, made, one, own, own_made, settle)


def _ours(which: Q) -> list[Row]:
    with system_scope("our side of credit paid ahead"):
        return [_row(each) for each in TopUp.objects.filter(which).select_related("tenant")]


def _row(top_up: TopUp) -> Row:
    return Row(
        our_id=str(top_up.id),
        their_id=top_up.payment_id,
        name=f"top-up of {top_up.tenant.slug}",
        status=top_up.state,
        currency=top_up.currency,
        amount_minor=top_up.amount_minor,
        made_at=top_up.settled_at or top_up.created_at,
    )


def _theirs(intent: TheirIntent, their_id: str) -> Row:
    return Row(
        our_id=intent.our_id,
        their_id=their_id,
        name=f"payment {intent.intent_id}",
        status=PAID,
        currency=intent.currency,
        amount_minor=intent.amount_minor,
        made_at=intent.made_at,
    )


def _at_checkouts(intents: Sequence[TheirIntent]) -> dict[str, str]:
    """Of payments that were made at a checkout of ours, that one: the oldest of each top-up."""
    with system_scope("which payments are ours"):
        rows = TopUp.objects.filter(id__in=[each for each in map(_subject, intents) if each])
        known = {str(row.id): row.payment_id for row in rows}
    taken: dict[str, str] = {}
    # As listed, the newest is first, also of those of one second.
    for n in sorted(range(len(intents)), key=lambda n: (intents[n].made_at, -n)):
        intent = intents[n]
        if known.get(intent.our_id, "").startswith(CHECKOUT):
            taken[intent.intent_id] = known.pop(intent.our_id)
    return taken


def _subject(intent: TheirIntent) -> UUID | None:
    try:
        return UUID(intent.our_id)
    except ValueError:
        return None
