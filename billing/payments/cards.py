"""The card an organisation is charged by: typed in at the provider, never here.

    wanted -> chosen | expired

A visit to the provider's page is written down before it is opened. Whoever hears that it is over
(the customer coming back, an event, the sweep) reads it again; the card that was typed in becomes
the default.

Guarantees: of two cards the one typed in last stays, however late, often and in whichever order one
hears of them; what the customer chose at the provider meanwhile stays, too. Calls are made outside
transactions.
"""

import logging
from datetime import datetime
from uuid import UUID

from django.conf import settings

from billing.payments import steps
from billing.payments.accounts import ensure_account, remember_card
from billing.payments.checkout_port import CheckoutOrder, ProviderCheckout
from billing.payments.models import BillingAccount, CardSetup, PaymentStep
from billing.payments.provider import PaymentProvider
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from tenants.queries import organisation
from tenants.scoping import tenant_scope

log = logging.getLogger(__name__)
State = CardSetup.State


def open_card_setup(tenant_id: UUID, provider: PaymentProvider, *, by: str) -> str:
    """Where a card is typed in, once. Raises what `PaymentProvider.send` raises."""
    customer_id = ensure_account(tenant_id, provider)
    with tenant_scope(tenant_id):
        setup = CardSetup.objects.create(tenant_id=tenant_id, created_by=by[:120])
        order = CheckoutOrder(
            subject_id=setup.id,
            tenant_id=tenant_id,
            customer_id=customer_id,
            currency=organisation().currency,
            return_url=f"{settings.PUBLIC_WEB_URL}/billing/card/{setup.id}/",
        )
    checkout_id = open_checkout(tenant_id, order, provider)
    with tenant_scope(tenant_id):
        CardSetup.objects.filter(id=setup.id).update(checkout_id=checkout_id)
    return provider.checkout(checkout_id).url


def open_checkout(tenant_id: UUID, order: CheckoutOrder, provider: PaymentProvider) -> str:
    """The one checkout of an order; its id."""
    with tenant_scope(tenant_id):
        step = steps.freeze(
            tenant_id,
            None,
            PaymentStep.Kind.CHECKOUT,
            provider.checkout_parameters(order),
            subject_id=order.subject_id,
        )
    return steps.perform(
        tenant_id,
        step.id,
        provider,
        target_id="",
        recover=lambda since: provider.find_checkout(order.customer_id, order.subject_id, since),
    )


def settle_card_setup(tenant_id: UUID, setup_id: UUID, provider: PaymentProvider) -> str:
    """Read again what became of a visit, and apply it; the state it is in.

    Raises `CallerError` 404 `card_setup_not_found`, and `WorldError` when the provider is away.
    """
    with tenant_scope(tenant_id):
        setup: CardSetup | None = CardSetup.objects.filter(id=setup_id).first()
        account: BillingAccount | None = BillingAccount.objects.filter(
            provider=provider.name
        ).first()
    if setup is None or account is None:
        raise CallerError("card_setup_not_found", "There is no such visit here.", status=404)
    if setup.state != State.WANTED:
        return str(setup.state)
    checkout_id = setup.checkout_id or provider.find_checkout(
        account.customer_id, setup.id, setup.created_at - steps.CLOCK_SLACK
    )
    if not checkout_id:
        return _conclude(tenant_id, setup, never_opened(setup.created_at))
    theirs = provider.checkout(checkout_id)
    if not _is_ours(theirs, setup.id, account.customer_id):
        log.error("checkout %s is not card setup %s", checkout_id, setup.id)
        return _conclude(tenant_id, setup, State.EXPIRED)
    if theirs.status == "complete" and theirs.payment_method:
        _choose(tenant_id, account, theirs.payment_method, provider)
        return _conclude(tenant_id, setup, State.CHOSEN, payment_method=theirs.payment_method)
    return _conclude(tenant_id, setup, State.EXPIRED if theirs.status == "expired" else None)


def refresh_card(tenant_id: UUID, provider: PaymentProvider) -> bool:
    """Read again which card is charged: it can be changed at the provider. True if it was."""
    with tenant_scope(tenant_id):
        account = BillingAccount.objects.filter(provider=provider.name).first()
    if account is None:
        return False
    return remember_card(tenant_id, provider.name, provider.card(account.customer_id))


def open_billing_portal(tenant_id: UUID, provider: PaymentProvider) -> str:
    """The provider's own page of cards, invoices and receipts. It changes nothing by itself, so
    that opening it twice needs no care: it is no step."""
    customer_id = ensure_account(tenant_id, provider)
    back = f"{settings.PUBLIC_WEB_URL}/billing/card/"
    return provider.open_portal(customer_id, back, f"portal:{uuid7()}")


def never_opened(created_at: datetime) -> str | None:
    """What a visit nobody was sent to is: over, once the provider could not take it any more."""
    return "expired" if clock.now() - created_at > steps.KEY_REMEMBERED else None


def _is_ours(theirs: ProviderCheckout, subject_id: UUID, customer_id: str) -> bool:
    return (theirs.subject_id, theirs.customer_id) == (str(subject_id), customer_id)


def _choose(
    tenant_id: UUID, account: BillingAccount, payment_method: str, provider: PaymentProvider
) -> None:
    """Make it the default, unless one that was typed in later is; once told twice, twice the same.

    The key is the card's: sent again it says the same.
    """
    card = provider.payment_method(payment_method)
    if account.card_kept_at is None or card.kept_at >= account.card_kept_at:
        provider.choose_card(account.customer_id, payment_method, f"card:{payment_method}")
    refresh_card(tenant_id, provider)


def _conclude(tenant_id: UUID, setup: CardSetup, state: str | None, **facts: str) -> str:
    changes = facts | ({"state": state} if state else {})
    with tenant_scope(tenant_id):
        CardSetup.objects.filter(id=setup.id, state=State.WANTED).update(
            checked_at=clock.now(), **changes
        )
    return state or State.WANTED
