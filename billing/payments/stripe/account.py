"""One Stripe account, or the sandbox: the same code, another key and base address."""

import hashlib
from typing import Any

from django.conf import settings

from billing.payments.pace import Pace, apart
from billing.payments.provider import NoProvider, Parameters, SendKind
from billing.payments.stripe import charges, checkouts, corrections, customers, invoices
from billing.payments.stripe.amounts import MINIMUM_CHARGE_MINOR
from billing.payments.stripe.charges import Charges
from billing.payments.stripe.checkouts import Checkouts
from billing.payments.stripe.client import LIST_PAGE, translated
from billing.payments.stripe.corrections import Corrections
from billing.payments.stripe.customers import Customers
from billing.payments.stripe.disputes import Disputes
from billing.payments.stripe.events import EventList
from billing.payments.stripe.invoices import Invoices
from billing.payments.stripe.reconciling import Reconciling
from billing.payments.stripe.taxes import Taxes
from billing.payments.stripe_settings import API_VERSION, NO_PROVIDER, is_live

WITHOUT_PROVIDER = (
    "This installation has no payment provider (PAYMENT_PROVIDER=none). Have the organisation pay"
    " by bank transfer, or configure a provider; then resume collecting."
)
# Calls a second that Stripe documents: of an account, live and in a sandbox, and of one endpoint.
LIVE_RATE_MAX, TEST_RATE_MAX, ENDPOINT_RATE_MAX = 100, 25, 25

_SENDS = {
    **customers.SENDS,
    **invoices.SENDS,
    **checkouts.SENDS,
    **charges.SENDS,
    **corrections.SENDS,
}


class Stripe(
    Customers, Invoices, Checkouts, Charges, Corrections, Disputes, EventList, Reconciling, Taxes
):
    """See the port, `billing.payments.provider.PaymentProvider`."""

    name = "stripe"

    def minimum_minor(self, currency: str) -> int:
        return MINIMUM_CHARGE_MINOR.get(currency, 1)

    def send(
        self, kind: SendKind, target_id: str, parameters: Parameters, idempotency_key: str
    ) -> str:
        """One call with exactly these parameters; see the port."""
        with translated():
            return _SENDS[kind](
                self._client.v1, target_id, dict(parameters), {"idempotency_key": idempotency_key}
            )

    def ensure_webhook_endpoint(self, url: str, *, renew: bool) -> str | None:
        with translated():
            endpoints = self._client.v1.webhook_endpoints
            for known in endpoints.list({"limit": LIST_PAGE}).auto_paging_iter():
                if known.url == url:
                    if not renew:
                        return None
                    endpoints.delete(known.id)
            body: Any = {"url": url, "enabled_events": ["*"], "api_version": API_VERSION}
            made = endpoints.create(body)
        return made.secret


def provider() -> Stripe:
    """The account of this installation. Raises `ProviderNotConfigured`; `NoProvider` where it is
    said that there is none."""
    if settings.PAYMENT_PROVIDER == NO_PROVIDER:
        raise NoProvider("no_provider", WITHOUT_PROVIDER)
    key, base = settings.STRIPE_API_KEY, settings.STRIPE_API_BASE
    account = hashlib.sha256(f"{key} {base}".encode()).hexdigest()[:16]
    overall = LIVE_RATE_MAX if is_live(key) else TEST_RATE_MAX
    return Stripe(key, base, Pace(account, apart(ENDPOINT_RATE_MAX), apart(overall)))
