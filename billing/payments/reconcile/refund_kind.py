"""Refunds: ours against those that the provider made, by state and amount, whoever asked for them.

One of the provider's own pages gets its row here as soon as it is looked at, if it is of an
invoice of ours; one of a payment that our books do not refund, as of credit paid ahead, has none
and is told. One that was asked for here and is younger than a day may be on its way there.
"""

from collections.abc import Collection, Iterable
from datetime import datetime

from django.db.models import Q

from billing.payments.correction_events import money_went_back
from billing.payments.models import PaymentFinding, Refund
from billing.payments.provider import PaymentProvider
from billing.payments.reconcile.compare import Row
from billing.payments.reconcile.kind import BROUGHT_WITHIN, Kind, customers_of
from billing.payments.reconcile_port import TheirRefund
from meterplane.kernel import clock
from tenants.scoping import system_scope

_State = Refund.State


def refunds(provider: PaymentProvider) -> Kind:
    """Of theirs those are ours that say so, or whose customer is."""

    def theirs(found: Iterable[TheirRefund]) -> list[Row]:
        rows = list(found)
        customers = customers_of(provider, {each.customer_id for each in rows})
        known = _known({each.their_id for each in rows})
        return [
            _theirs(each, known.get(each.their_id, ""))
            for each in rows
            if each.our_id or each.their_id in known or each.customer_id in customers
        ]

    def one(their_id: str) -> Row | None:
        their = provider.refund_made(their_id)
        return next(iter(theirs([their] if their else [])), None)

    def own(their_ids: Collection[str]) -> list[Row]:
        return _ours(Q(provider_refund_id__in=their_ids))

    def own_made(start: datetime, end: datetime) -> list[Row]:
        late = Q(
            state=_State.ASKED,
            provider_refund_id=None,
            created_at__gte=start,
            created_at__lt=min(end, clock.now() - BROUGHT_WITHIN),
        )
        return _ours(late | Q(made_at__gte=start, made_at__lt=end))

    def settle(their_id: str) -> object:
        their = provider.refund_made(their_id)
        about = {"payment_intent": their.intent_id} if their else None
        return money_went_back(about, provider) if about else None

    def _known(their_ids: Collection[str]) -> dict[str, str]:
        """Only those that somebody asked for here say whose they are."""
        with system_scope("which refunds are ours"):
            rows = Refund.objects.filter(provider=provider.name, provider_refund_id__in=their_ids)
            return {str(each.provider_refund_id): str(each.id) for each in rows}

    def _ours(which: Q) -> list[Row]:
        with system_scope("our side of refunds at the provider"):
            rows = Refund.objects.filter(which, provider=provider.name)
            return [_row(each) for each in rows.select_related("invoice")]

    def made(start: datetime, end: datetime) -> list[Row]:
        return theirs(provider.refunds_made(start, end))

    return Kind(PaymentFinding.Kind.REFUND, made, one, own, own_made, settle)


def _row(refund: Refund) -> Row:
    return Row(
        our_id=str(refund.id),
        their_id=refund.provider_refund_id or "",
        name=f"refund of invoice {refund.invoice.number}",
        status=refund.state,
        currency=refund.currency,
        amount_minor=refund.amount_minor,
        made_at=refund.made_at or refund.created_at,
    )


def _theirs(their: TheirRefund, known: str) -> Row:
    return Row(
        our_id=their.our_id or known,
        their_id=their.their_id,
        name=f"refund {their.their_id}",
        status=their.state,
        currency=their.currency,
        amount_minor=their.amount_minor,
        made_at=their.made_at,
    )
