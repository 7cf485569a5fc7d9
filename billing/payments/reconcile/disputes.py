"""Disputes compared both ways: their status, and what they took from the provider's balance with
its fees, against what our ledger has of that.

All of the account's are looked at, whoever paid: money of ours is gone with each. A parked one
differs until its payment is known.
"""

from collections.abc import Collection
from datetime import datetime

from django.db.models import Q

from billing.ledger.accounts import PAYMENTS
from billing.ledger.queries import entries_by_source
from billing.payments.dispute_entries import KINDS
from billing.payments.dispute_port import ProviderDispute
from billing.payments.disputes import mirror_dispute
from billing.payments.models import Dispute, DisputeMovement, PaymentFinding
from billing.payments.provider import PaymentProvider, ProviderRefused
from billing.payments.reconcile.compare import Row
from billing.payments.reconcile.kind import Kind
from tenants.scoping import system_scope

PARKED = "parked"


def disputes(provider: PaymentProvider) -> Kind:
    """Those opened in a window. Theirs do not say which of ours they are: our row does."""

    def rows_of(theirs: Collection[ProviderDispute]) -> list[Row]:
        with system_scope("our side of disputes"):
            known = dict(
                Dispute.objects.filter(
                    provider=provider.name,
                    provider_dispute_id__in=[each.provider_dispute_id for each in theirs],
                ).values_list("provider_dispute_id", "id")
            )
        return [_theirs(each, str(known.get(each.provider_dispute_id, ""))) for each in theirs]

    def one(their_id: str) -> Row | None:
        try:
            return rows_of([provider.dispute(their_id)])[0]
        except ProviderRefused as refused:
            if refused.code == "missing":
                return None
            raise

    return Kind(
        PaymentFinding.Kind.DISPUTE,
        lambda start, end: rows_of(provider.disputes_made(start, end)),
        one,
        lambda their_ids: _ours(provider, Q(provider_dispute_id__in=their_ids)),
        lambda start, end: _ours(provider, _opened_in(start, end)),
        lambda their_id: mirror_dispute(their_id, provider),
    )


def _opened_in(start: datetime, end: datetime) -> Q:
    return Q(opened_at__gte=start, opened_at__lt=end)


def _theirs(their: ProviderDispute, our_id: str) -> Row:
    """What left the balance, above zero; a fee in another currency is not compared."""
    gone = sum(
        -their.moved_minor(each) + (each.fee_minor if each.currency == their.currency else 0)
        for each in their.transactions
    )
    return Row(
        our_id,
        their.provider_dispute_id,
        f"dispute {their.provider_dispute_id}",
        their.status,
        their.currency,
        gone,
        their.opened_at,
    )


def _ours(provider: PaymentProvider, which: Q) -> list[Row]:
    with system_scope("our disputes"):
        found = list(Dispute.objects.filter(which, provider=provider.name))
        of = {
            str(movement_id): dispute_id
            for movement_id, dispute_id in DisputeMovement.objects.filter(
                dispute__in=found
            ).values_list("id", "dispute_id")
        }
        entries = entries_by_source(set(KINDS.values()), set(of))
    gone = dict.fromkeys([row.id for row in found], 0)
    currencies = {row.id: row.currency for row in found}
    for (_, source_id), posted in entries.items():
        dispute_id = of[source_id]
        gone[dispute_id] -= sum(
            leg.amount_minor
            for entry in posted
            for leg in entry.legs
            if leg.account == PAYMENTS and entry.currency == currencies[dispute_id]
        )
    return [
        Row(
            str(row.id),
            row.provider_dispute_id,
            f"our dispute {row.provider_dispute_id}",
            PARKED if row.is_parked else row.status,
            row.currency,
            None if row.is_parked else gone[row.id],
            row.opened_at,
        )
        for row in found
    ]
