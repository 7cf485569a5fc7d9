"""Which of our payments a dispute is of. What the provider says of it is only a name of ours."""

from dataclasses import dataclass
from uuid import UUID

from billing.invoicing.models import Invoice
from billing.payments.charge_port import ProviderCharge
from billing.payments.dispute_port import ProviderDispute
from billing.payments.mirror import mirror
from billing.payments.models import BillingAccount, PaymentRun, TopUp
from billing.payments.provider import PaymentProvider
from billing.payments.top_ups import settle_top_up
from tenants.scoping import system_scope


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment that is in our books: of an invoice, or of a top-up."""

    tenant_id: UUID
    invoice_id: UUID | None = None
    top_up_id: UUID | None = None


def payment_of(theirs: ProviderDispute, provider: PaymentProvider) -> Payment | str:
    """The payment, brought into our books if it was not there yet; or why there is none.

    Raises `ProviderRefused`, and `WorldError` when the provider is away.
    """
    if not theirs.payment_intent_id:
        return f"Charge {theirs.charge_id} was made without a payment of ours."
    charge = provider.charge(theirs.payment_intent_id)
    if charge.subject_id:
        return _of_top_up(charge, provider)
    their_invoice = provider.invoice_of_payment(theirs.payment_intent_id)
    if their_invoice is not None:
        return _of_invoice(their_invoice, provider)
    return f"Payment {theirs.payment_intent_id}, of {_customer(charge, provider)}, is none of ours."


def _of_top_up(charge: ProviderCharge, provider: PaymentProvider) -> Payment | str:
    try:
        subject_id = UUID(charge.subject_id)
    except ValueError:
        return f"Payment {charge.charge_id} names a top-up that is none of ours."
    with system_scope("whose top-up is disputed"):
        top_up = TopUp.objects.filter(id=subject_id).first()
        is_theirs = BillingAccount.objects.filter(
            provider=provider.name,
            customer_id=charge.customer_id,
            tenant_id=top_up.tenant_id if top_up is not None else None,
        ).exists()
    if top_up is None or not is_theirs:
        return f"Payment {charge.charge_id} names a top-up that is none of ours."
    if top_up.state != TopUp.State.PAID:
        top_up = settle_top_up(top_up.tenant_id, top_up.id, provider)
    if top_up.state != TopUp.State.PAID:
        return f"Its top-up {top_up.id} is {top_up.state}: nothing was granted for it."
    return Payment(top_up.tenant_id, top_up_id=top_up.id)


def _of_invoice(their_id: str, provider: PaymentProvider) -> Payment | str:
    with system_scope("whose invoice is disputed"):
        run = (
            PaymentRun.objects.filter(provider=provider.name, provider_invoice_id=their_id)
            .select_related("invoice")
            .first()
        )
    if run is None:
        return f"Invoice {their_id} there is none of ours."
    if run.invoice.status != Invoice.Status.PAID:
        mirror(run.tenant_id, run.invoice_id, provider.invoice(their_id))
        with system_scope("what the disputed invoice is now"):
            run.invoice.refresh_from_db()
    if run.invoice.status != Invoice.Status.PAID:
        return f"Its invoice {run.invoice.number} is {run.invoice.status} here."
    return Payment(run.tenant_id, invoice_id=run.invoice_id)


def _customer(charge: ProviderCharge, provider: PaymentProvider) -> str:
    with system_scope("whose customer paid"):
        account = (
            BillingAccount.objects.filter(
                provider=provider.name, customer_id=charge.customer_id or "-"
            )
            .select_related("tenant")
            .first()
        )
    return account.tenant.slug if account is not None else "no customer of ours"
