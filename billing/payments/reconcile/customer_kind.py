"""Customers: one there for each of our billing accounts, and what the provider keeps for them.

A balance there is the provider's own fact. What invoices gave to it and took from it is compared
with them (`kinds.payments`); what somebody else put there will pay an invoice some day without any
money having come, so that it is told as long as some of it is left.
"""

from collections.abc import Collection
from datetime import datetime

from django.db.models import Q

from billing.payments.models import BillingAccount, PaymentFinding
from billing.payments.provider import PaymentProvider
from billing.payments.reconcile.compare import Row
from billing.payments.reconcile.kind import Kind
from billing.payments.reconcile_port import TheirCustomer
from tenants.scoping import system_scope

KEPT = "kept"
_AMOUNT_NAME = "balance that is of no invoice"


def customers(provider: PaymentProvider) -> Kind:
    """Of theirs those are ours that say so; others of the same account are nobody's here."""

    def theirs(their: TheirCustomer) -> Row:
        balance_minor = their.balance_minor
        foreign_minor = (
            provider.foreign_balance_minor(their.their_id, balance_minor) if balance_minor else 0
        )
        return Row(
            our_id=their.our_id,
            their_id=their.their_id,
            name=f"customer {their.their_id}",
            status=KEPT,
            currency=their.currency,
            amount_minor=foreign_minor if foreign_minor else None,
            made_at=their.made_at,
        )

    def made(start: datetime, end: datetime) -> list[Row]:
        found = provider.customers_made(start, end)
        known = {row.their_id for row in own({each.their_id for each in found})}
        return [theirs(each) for each in found if each.our_id or each.their_id in known]

    def one(their_id: str) -> Row | None:
        their = provider.customer_made(their_id)
        return theirs(their) if their is not None else None

    def own(their_ids: Collection[str]) -> list[Row]:
        return _ours(Q(customer_id__in=their_ids))

    def own_made(start: datetime, end: datetime) -> list[Row]:
        return _ours(Q(created_at__gte=start, created_at__lt=end))

    def _ours(which: Q) -> list[Row]:
        with system_scope("which customers are ours"):
            rows = BillingAccount.objects.filter(which, provider=provider.name)
            return [_row(each) for each in rows.select_related("tenant")]

    return Kind(PaymentFinding.Kind.CUSTOMER, made, one, own, own_made, settle=lambda _: None)


def _row(account: BillingAccount) -> Row:
    return Row(
        our_id=str(account.tenant_id),
        their_id=account.customer_id,
        name=f"customer {account.tenant.slug}",
        status=KEPT,
        currency=account.tenant.currency,
        amount_minor=0,
        made_at=account.created_at,
        amount_name=_AMOUNT_NAME,
    )
