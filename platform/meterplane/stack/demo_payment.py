"""The demo pays: a test card on file, and its open invoices collected.

Only ever with a test key: a live account refuses the card. Where there is no provider it pays by
bank transfer, and its invoices are open.
"""

from uuid import UUID

from billing.invoicing.models import Invoice
from billing.payments import collect as collection
from billing.payments.accounts import attach_test_card
from billing.payments.models import BillingAccount, Method
from billing.payments.provider import NoProvider
from billing.payments.stripe import provider
from billing.payments.terms import set_terms
from billing.payments.terms_models import DAYS_UNTIL_DUE_DEFAULT
from tenants.scoping import tenant_scope


def provide_card(tenant_id: UUID) -> None:
    """Put a test card on file. Before a period is closed: the sweep collects within seconds."""
    try:
        account = provider()
    except NoProvider:
        with tenant_scope(tenant_id):
            set_terms(Method.MANUAL, DAYS_UNTIL_DUE_DEFAULT, by="demo")
        return
    with tenant_scope(tenant_id):
        has_card = BillingAccount.objects.exclude(default_payment_method="").exists()
    if not has_card and not account.is_live:
        attach_test_card(tenant_id, account)


def collect(tenant_id: UUID) -> None:
    """Collect every invoice of the demo that waits for it.

    Raises `WorldError` when Stripe, or its sandbox, is away.
    """
    with tenant_scope(tenant_id):
        waiting = list(
            Invoice.objects.filter(collection_state=Invoice.Collection.PENDING)
            .order_by("period_end")
            .values_list("id", flat=True)
        )
    for invoice_id in waiting:
        collection.collect(tenant_id, invoice_id, provider)
