"""A tenant's customer at the provider: made once, found again after an unclear outcome; and which
card of it is charged."""

from uuid import UUID

from billing.invoicing.models import Invoice
from billing.payments import steps
from billing.payments.checkout_port import ProviderCard
from billing.payments.models import AutoReload, BillingAccount, PaymentStep
from billing.payments.provider import CustomerOrder, PaymentProvider
from tenants.models import Member
from tenants.queries import organisation
from tenants.scoping import tenant_scope

TEST_CARD = "pm_card_visa"


def ensure_account(tenant_id: UUID, provider: PaymentProvider) -> str:
    """The tenant's customer id, creating the customer where there is none.

    Raises what `PaymentProvider.send` raises.
    """
    with tenant_scope(tenant_id):
        account = BillingAccount.objects.filter(provider=provider.name).first()
        if account is not None:
            return str(account.customer_id)
        owner = Member.objects.filter(role=Member.Role.OWNER).select_related("user").first()
        order = CustomerOrder(
            tenant_id, organisation().name, owner.user.email if owner is not None else ""
        )
        step = steps.freeze(
            tenant_id, None, PaymentStep.Kind.CUSTOMER, provider.customer_parameters(order)
        )
    customer_id = steps.perform(
        tenant_id,
        step.id,
        provider,
        target_id="",
        recover=lambda since: provider.find_customer(tenant_id, since),
    )
    with tenant_scope(tenant_id):
        BillingAccount.objects.get_or_create(
            tenant_id=tenant_id, provider=provider.name, defaults={"customer_id": customer_id}
        )
        return str(BillingAccount.objects.get(provider=provider.name).customer_id)


def attach_test_card(tenant_id: UUID, provider: PaymentProvider, card: str = TEST_CARD) -> str:
    """Give the tenant a test card to be charged. Refused on a live account."""
    customer_id = ensure_account(tenant_id, provider)
    payment_method = provider.attach_test_card(customer_id, card)
    remember_card(tenant_id, provider.name, provider.card(customer_id))
    return payment_method


def remember_card(tenant_id: UUID, provider_name: str, card: ProviderCard | None) -> bool:
    """Keep which card is charged, as it was just read; True if it is another than before.

    Invoices that only waited for a card are collected by the next sweep, and what is reloaded by
    itself goes on.
    """
    with tenant_scope(tenant_id):
        account: BillingAccount = BillingAccount.objects.select_for_update().get(
            provider=provider_name
        )
        before = account.default_payment_method
        account.default_payment_method = card.payment_method if card else ""
        account.card_brand = card.brand if card else ""
        account.card_last4 = card.last4 if card else ""
        if card is not None:
            account.card_kept_at = max(filter(None, (account.card_kept_at, card.kept_at)))
        account.save()
        if card is None:
            return bool(before)
        Invoice.objects.filter(
            collection_state=Invoice.Collection.AWAITING_PAYMENT, payment_attempts=0
        ).update(collection_state=Invoice.Collection.PENDING, collection_note="")
        if card.payment_method == before:
            return False
        AutoReload.objects.update(paused_at=None, pause_note="")
        return True
