"""Events about charges, refunds and credit notes: which invoice to look at again, and the look.

A charge or refund of no invoice of ours, such as one for credit, is nobody's here.
"""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from billing.payments.mirror import mirror
from billing.payments.models import PaymentRun
from billing.payments.provider import PaymentProvider, ProviderRefused
from billing.payments.refunds import mirror_refunds
from tenants.scoping import system_scope

About = Mapping[str, Any]  # what the event says of its object: a hint


def money_went_back(about: About, provider: PaymentProvider) -> str:
    """A refund, or a charge that has some: every refund of its invoice is read."""
    intent_id = str(about.get("payment_intent") or "")
    try:
        their_id = provider.invoice_of_payment(intent_id) if intent_id else None
    except ProviderRefused as refused:
        return f"cannot be read: {refused.code}"
    found = _ours(their_id, provider)
    if found is None:
        return "not of an invoice of ours"
    return f"{mirror_refunds(*found, provider)} refunds"


def charge_changed(about: About, provider: PaymentProvider) -> str:
    """Most of what happens to charges is told by their invoices too."""
    return money_went_back(about, provider) if about.get("amount_refunded") else "nothing went back"


def note_changed(about: About, provider: PaymentProvider) -> str:
    """A credit note that was issued or voided: ours are compared with what the invoice says."""
    their_id = str(about.get("invoice") or "")
    found = _ours(their_id, provider)
    if found is None:
        return "not of an invoice of ours"
    theirs = provider.invoice(their_id)
    mirror(*found, theirs)
    mirror_refunds(*found, provider)
    return f"{theirs.credited_minor} credited"


HEARD: Mapping[str, Callable[[About, PaymentProvider], str]] = {
    "charge": charge_changed,
    "refund": money_went_back,
    "credit_note": note_changed,
}


def _ours(their_id: str | None, provider: PaymentProvider) -> tuple[UUID, UUID] | None:
    if not their_id:
        return None
    with system_scope("whose invoice an event is about"):
        return (
            PaymentRun.objects.filter(provider=provider.name, provider_invoice_id=their_id)
            .values_list("tenant_id", "invoice_id")
            .first()
        )
