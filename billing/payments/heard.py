"""Events about cards and top-ups: hints which of ours to look at again, and no more than that.

What an event says of itself is not believed: its metadata only names a row of ours, which then
reads its own checkout or charge.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from billing.payments.cards import refresh_card, settle_card_setup
from billing.payments.checkout_port import SUBJECT
from billing.payments.models import BillingAccount, CardSetup, TopUp
from billing.payments.provider import PaymentProvider, ProviderRefused
from billing.payments.top_ups import settle_top_up
from tenants.scoping import system_scope

MONEY_IN = frozenset({"checkout.session", "payment_intent", "customer"})


def heard(about: Mapping[str, Any], provider: PaymentProvider) -> str:
    """Look again at what an event is about; what came of it.

    Raises `WorldError` when the provider is away.
    """
    try:
        if about.get("object") == "customer":
            return _customer(str(about.get("id", "")), provider)
        return _subject(about, provider)
    except ProviderRefused as refused:
        return f"cannot be read: {refused.code}"


def _customer(customer_id: str, provider: PaymentProvider) -> str:
    with system_scope("whose customer an event is about"):
        account = BillingAccount.objects.filter(
            provider=provider.name, customer_id=customer_id
        ).first()
    if account is None:
        return "not a customer of ours"
    changed = refresh_card(account.tenant_id, provider)
    return "another card" if changed else "the card as known"


def _subject(about: Mapping[str, Any], provider: PaymentProvider) -> str:
    metadata = about.get("metadata")
    try:
        subject_id = UUID(str(metadata.get(SUBJECT, "") if isinstance(metadata, dict) else ""))
    except ValueError:
        return "not about a top-up or card of ours"
    with system_scope("what an event is about"):
        top_up = TopUp.objects.filter(id=subject_id).first()
        setup = CardSetup.objects.filter(id=subject_id).first()
    if top_up is not None:
        return f"top-up {settle_top_up(top_up.tenant_id, top_up.id, provider).state}"
    if setup is not None:
        return f"card {settle_card_setup(setup.tenant_id, setup.id, provider)}"
    return "not about a top-up or card of ours"
