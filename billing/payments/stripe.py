"""The Stripe adapter: the only importer of `stripe`.

Guarantees: every call carries our pinned API version, an explicit idempotency key and its frozen
parameters; amounts are integers; every foreign exception becomes one of `provider`'s. Telemetry is
off, waits are bounded. A live key is refused when the base address is on this machine.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
import requests
import stripe
from django.conf import settings

from billing.payments.provider import (
    CardDeclined,
    CustomerOrder,
    DraftOrder,
    EventRefused,
    LineOrder,
    Parameters,
    ProviderCustomer,
    ProviderEvent,
    ProviderFault,
    ProviderInvoice,
    ProviderLine,
    ProviderNotConfigured,
    ProviderRefused,
    ProviderUnavailable,
    SendKind,
)

log = logging.getLogger(__name__)

API_VERSION = "2026-10-28.endive"
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
NETWORK_RETRIES = 2
LIST_PAGE = 100
SIGNATURE_AGE_S_MAX = 300
LOOPBACK_HOSTS = {"127.0.0.1", "localhost", "::1"}
KEY_SHAPE = re.compile(r"(sk|rk)_(test|live)_[A-Za-z0-9_]{8,}")
WEBHOOK_SECRET_SHAPE = re.compile(r"whsec_[A-Za-z0-9+/=_-]{16,}")
LIVE_PREFIXES = ("sk_live_", "rk_live_")

stripe.enable_telemetry = False
logging.getLogger("stripe").setLevel(logging.WARNING)  # two lines per call say nothing we do not


class _About(msgspec.Struct):
    object: str
    id: str = ""


class _Data(msgspec.Struct):
    object: _About


class _Event(msgspec.Struct):
    """The parts of a snapshot event that are looked at."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    type: Annotated[str, msgspec.Meta(max_length=100)]
    data: _Data
    api_version: str | None
    livemode: bool


class Stripe:
    """One Stripe account, or the sandbox: the same code, another key and base address."""

    name = "stripe"

    def __init__(self, api_key: str, api_base: str = "") -> None:
        """Raises `ProviderNotConfigured` for a key that cannot be meant."""
        self.is_live = api_key.startswith(LIVE_PREFIXES)
        _check(api_key, api_base, self.is_live)
        timeout = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        bases = ("api", "files", "connect", "meter_events")
        self._client = stripe.StripeClient(
            api_key,
            base_addresses=dict.fromkeys(bases, api_base.rstrip("/")) if api_base else {},  # type: ignore[arg-type]
            http_client=stripe.RequestsClient(timeout=timeout, session=_session(api_base)),
            max_network_retries=NETWORK_RETRIES,
            stripe_version=API_VERSION,
        )

    # --- what is frozen before it is sent

    def customer_parameters(self, order: CustomerOrder) -> Parameters:
        """Metadata is how a customer is found again: an e-mail is not unique."""
        return {
            "name": order.name,
            "email": order.email,
            "metadata": {"meterplane_tenant": str(order.tenant_id)},
        }

    def draft_parameters(self, order: DraftOrder) -> Parameters:
        """Nothing pending is swept in, and Stripe does not finalise by itself."""
        return {
            "customer": order.customer_id,
            "currency": order.currency.lower(),
            "auto_advance": False,
            "collection_method": "charge_automatically",
            "pending_invoice_items_behavior": "exclude",
            "description": order.description,
            "metadata": {
                "meterplane_invoice": str(order.invoice_id),
                "meterplane_tenant": str(order.tenant_id),
                "meterplane_digest": order.digest,
            },
        }

    def lines_parameters(self, lines: Sequence[LineOrder]) -> Parameters:
        """Integer amounts; quantity and unit price are in the description."""
        return {
            "lines": [
                {
                    "description": line.description,
                    "amount": line.amount_minor,
                    "period": {
                        "start": int(line.starts_at.timestamp()),
                        "end": int(line.ends_at.timestamp()),
                    },
                    "metadata": {"meterplane_line": line.uid},
                }
                for line in lines
            ]
        }

    def finalise_parameters(self) -> Parameters:
        return {"auto_advance": False}

    def pay_parameters(self) -> Parameters:
        return {}

    # --- sends

    def send(
        self, kind: SendKind, target_id: str, parameters: Parameters, idempotency_key: str
    ) -> str:
        """One call with exactly these parameters; see the port."""
        body: Any = dict(parameters)
        options: Any = {"idempotency_key": idempotency_key}
        invoices = self._client.v1.invoices
        with _translated():
            if kind == "customer":
                return self._client.v1.customers.create(body, options).id
            if kind == "draft":
                return invoices.create(body, options).id
            if kind == "lines":
                return invoices.add_lines(target_id, body, options).id
            if kind == "finalise":
                return invoices.finalize_invoice(target_id, body, options).id
            return invoices.pay(target_id, body, options).id

    # --- reads

    def customer(self, customer_id: str) -> ProviderCustomer:
        with _translated():
            found = self._client.v1.customers.retrieve(customer_id).to_dict(for_json=True)
        settings_of = found.get("invoice_settings") or {}
        return ProviderCustomer(customer_id, settings_of.get("default_payment_method") or "")

    def invoice(self, provider_invoice_id: str) -> ProviderInvoice:
        with _translated():
            found = self._client.v1.invoices.retrieve(provider_invoice_id)
            return _invoice(found.to_dict(for_json=True))

    def lines(self, provider_invoice_id: str) -> list[ProviderLine]:
        """All of them, page by page: the list inside an invoice is only the first page."""
        with _translated():
            first = self._client.v1.invoices.line_items.list(
                provider_invoice_id, {"limit": LIST_PAGE}
            )
            return [_line(line.to_dict(for_json=True)) for line in first.auto_paging_iter()]

    def find_customer(self, tenant_id: UUID, since: datetime) -> str | None:
        with _translated():
            page = self._client.v1.customers.list(
                {"limit": LIST_PAGE, "created": {"gte": int(since.timestamp())}}
            )
            for customer in page.auto_paging_iter():
                metadata = customer.to_dict(for_json=True).get("metadata") or {}
                if metadata.get("meterplane_tenant") == str(tenant_id):
                    return customer.id
        return None

    def find_invoice(self, customer_id: str, our_invoice_id: UUID, since: datetime) -> str | None:
        with _translated():
            page = self._client.v1.invoices.list(
                {
                    "customer": customer_id,
                    "limit": LIST_PAGE,
                    "created": {"gte": int(since.timestamp())},
                }
            )
            for invoice in page.auto_paging_iter():
                metadata = invoice.to_dict(for_json=True).get("metadata") or {}
                if metadata.get("meterplane_invoice") == str(our_invoice_id):
                    return str(invoice.id)
        return None

    def attach_test_card(self, customer_id: str, card: str) -> str:
        if self.is_live:
            raise ProviderRefused("live_account", "A test card does not belong on a live account.")
        with _translated():
            attached = self._client.v1.payment_methods.attach(card, {"customer": customer_id})
            self._client.v1.customers.update(
                customer_id, {"invoice_settings": {"default_payment_method": attached.id}}
            )
        return attached.id

    def ensure_webhook_endpoint(self, url: str, *, renew: bool) -> str | None:
        with _translated():
            endpoints = self._client.v1.webhook_endpoints
            for known in endpoints.list({"limit": LIST_PAGE}).auto_paging_iter():
                if known.url == url:
                    if not renew:
                        return None
                    endpoints.delete(known.id)
            body: Any = {"url": url, "enabled_events": ["*"], "api_version": API_VERSION}
            made = endpoints.create(body)
        return made.secret


def _session(api_base: str) -> requests.Session:
    """A proxy from the environment must not be handed what is meant for this machine."""
    session = requests.Session()
    session.trust_env = urlsplit(api_base).hostname not in LOOPBACK_HOSTS
    return session


def provider() -> Stripe:
    """The account of this installation. Raises `ProviderNotConfigured`."""
    return Stripe(settings.STRIPE_API_KEY, settings.STRIPE_API_BASE)


def read_event(payload: bytes, signature: str, secrets: Sequence[str]) -> ProviderEvent:
    """A webhook, verified on its raw bytes. Raises `EventRefused` naming what is wrong.

    Any of `secrets` may have signed it: two during a rotation. No secret, no event.
    """
    usable = [secret for secret in secrets if WEBHOOK_SECRET_SHAPE.fullmatch(secret)]
    if not usable:
        raise EventRefused("no webhook secret is configured")
    if not any(_signed_by(secret, payload, signature) for secret in usable):
        raise EventRefused("the signature does not match, or is too old")
    try:
        event = msgspec.json.decode(payload, type=_Event)
    except msgspec.DecodeError:  # another shape too: a thin event, or not JSON at all
        raise EventRefused("the payload is not a snapshot event") from None
    if event.api_version != API_VERSION:
        raise EventRefused(f"the event is of API version {event.api_version!r}")
    if event.livemode != settings.STRIPE_API_KEY.startswith(LIVE_PREFIXES):
        raise EventRefused("the event is of the other mode, live or test")
    about = event.data.object
    return ProviderEvent(event.id, event.type, about.object, about.id)


def _signed_by(secret: str, payload: bytes, signature: str) -> bool:
    try:
        return bool(
            stripe.WebhookSignature.verify_header(
                payload.decode(), signature, secret, SIGNATURE_AGE_S_MAX
            )
        )
    except (stripe.SignatureVerificationError, UnicodeDecodeError):
        return False


def _check(api_key: str, api_base: str, is_live: bool) -> None:
    if not KEY_SHAPE.fullmatch(api_key):
        raise ProviderNotConfigured(
            "stripe_key_invalid",
            "STRIPE_API_KEY must be a secret or restricted key (sk_test_, sk_live_, rk_...).",
        )
    if api_base and urlsplit(api_base).scheme not in {"http", "https"}:
        raise ProviderNotConfigured("stripe_base_invalid", "STRIPE_API_BASE must be an http URL.")
    if not is_live or not api_base:
        return
    if urlsplit(api_base).hostname in LOOPBACK_HOSTS:
        raise ProviderNotConfigured(
            "stripe_live_key_on_loopback", "A live Stripe key must not be sent to this machine."
        )
    if urlsplit(api_base).scheme != "https":
        raise ProviderNotConfigured(
            "stripe_live_key_in_clear", "A live Stripe key must not be sent without TLS."
        )


@contextmanager
def _translated() -> Iterator[None]:
    """Stripe's exceptions as the port's."""
    try:
        yield
    except stripe.CardError as declined:
        raise CardDeclined(declined.code or "card_declined", _message(declined)) from declined
    except (stripe.AuthenticationError, stripe.PermissionError) as denied:
        raise ProviderNotConfigured("stripe_access_denied", _message(denied)) from denied
    except (stripe.APIConnectionError, stripe.RateLimitError) as away:
        raise ProviderUnavailable("stripe_unavailable", _message(away)) from away
    except stripe.InvalidRequestError as refused:
        code = "missing" if refused.http_status == 404 else refused.code or "invalid_request"
        raise ProviderRefused(code, _message(refused)) from refused
    except stripe.StripeError as other:
        if other.http_status == 409:
            raise ProviderUnavailable("stripe_busy", _message(other)) from other
        if other.http_status is not None and other.http_status < 500:
            raise ProviderRefused(other.code or "refused", _message(other)) from other
        raise ProviderFault("stripe_fault", _message(other)) from other


def _message(failure: stripe.StripeError) -> str:
    return failure.user_message or str(failure)


def _invoice(found: Mapping[str, Any]) -> ProviderInvoice:
    metadata = found.get("metadata") or {}
    paid_at = (found.get("status_transitions") or {}).get("paid_at")
    customer = found.get("customer")
    return ProviderInvoice(
        provider_invoice_id=str(found["id"]),
        our_invoice_id=str(metadata.get("meterplane_invoice", "")),
        digest=str(metadata.get("meterplane_digest", "")),
        customer_id=str(customer["id"] if isinstance(customer, dict) else customer),
        status=str(found["status"]),
        currency=str(found["currency"]).upper(),
        subtotal_minor=int(found["subtotal"]),
        total_minor=int(found["total"]),
        amount_due_minor=int(found["amount_due"]),
        amount_paid_minor=int(found["amount_paid"]),
        starting_balance_minor=int(found.get("starting_balance") or 0),
        ending_balance_minor=found.get("ending_balance"),
        attempts=int(found.get("attempt_count") or 0),
        is_attempted=bool(found.get("attempted")),
        is_live=bool(found.get("livemode")),
        number=str(found.get("number") or ""),
        hosted_url=str(found.get("hosted_invoice_url") or ""),
        paid_at=datetime.fromtimestamp(paid_at, tz=UTC) if paid_at else None,
    )


def _line(found: Mapping[str, Any]) -> ProviderLine:
    metadata = found.get("metadata") or {}
    return ProviderLine(
        uid=str(metadata.get("meterplane_line", "")),
        amount_minor=int(found["amount"]),
        currency=str(found["currency"]).upper(),
        description=str(found.get("description") or ""),
    )
