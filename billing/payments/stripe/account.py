"""One Stripe account, or the sandbox: the same code, another key and base address."""

from typing import Any

from django.conf import settings

from billing.payments.provider import Parameters, SendKind
from billing.payments.stripe import customers, invoices
from billing.payments.stripe.client import API_VERSION, LIST_PAGE, translated
from billing.payments.stripe.customers import Customers
from billing.payments.stripe.invoices import Invoices

_SENDS = {**customers.SENDS, **invoices.SENDS}


class Stripe(Customers, Invoices):
    """See the port, `billing.payments.provider.PaymentProvider`."""

    name = "stripe"

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
    """The account of this installation. Raises `ProviderNotConfigured`."""
    return Stripe(settings.STRIPE_API_KEY, settings.STRIPE_API_BASE)
