"""The one charge of a top-up that nobody asked for in person.

Guarantees: the card on file is charged at most once for a top-up; what was refused is not tried
again for it. After a crash the same charge is found, or sent again under its key.
"""

from uuid import UUID

from billing.payments import steps
from billing.payments.charge_port import ChargeOrder, ProviderCharge
from billing.payments.models import BillingAccount, PaymentStep, TopUp
from billing.payments.provider import CardDeclined, PaymentProvider
from billing.payments.top_up_found import Found
from tenants.scoping import tenant_scope


def charge_for(
    tenant_id: UUID, top_up: TopUp, account: BillingAccount, provider: PaymentProvider
) -> ProviderCharge | Found:
    """The charge as it is there, made now if it was not; or what is known without asking.

    Raises what `PaymentProvider.send` raises, but for a decline.
    """
    if top_up.payment_id:
        return provider.charge(top_up.payment_id)
    with tenant_scope(tenant_id):
        before: PaymentStep | None = (
            PaymentStep.objects.filter(subject_id=top_up.id, kind=PaymentStep.Kind.CHARGE)
            .order_by("-revision")
            .first()
        )
    if before is not None and before.state == PaymentStep.State.FAILED:
        return Found(TopUp.State.FAILED, note=f"The charge was declined: {before.note}")
    if before is None and not account.default_payment_method:
        return Found(TopUp.State.FAILED, note="There is no card to charge.")
    order = ChargeOrder(
        subject_id=top_up.id,
        tenant_id=tenant_id,
        customer_id=account.customer_id,
        payment_method=account.default_payment_method,
        currency=top_up.currency,
        amount_minor=top_up.amount_minor,
        description="Credit for inference, reloaded by itself",
    )
    with tenant_scope(tenant_id):
        step = steps.freeze(
            tenant_id,
            None,
            PaymentStep.Kind.CHARGE,
            provider.charge_parameters(order),
            subject_id=top_up.id,
        )
    try:
        charge_id = steps.perform(
            tenant_id,
            step.id,
            provider,
            target_id="",
            recover=lambda since: provider.find_charge(account.customer_id, top_up.id, since),
        )
    except CardDeclined as declined:
        note = f"The charge was declined ({declined.code}): {declined.message}"
        return Found(TopUp.State.FAILED, note=note)
    return provider.charge(charge_id)
