"""One client of Stripe's, configured safely or not at all, and its exceptions as the port's.

Every call carries our pinned API version. Telemetry is off, waits are bounded. A live key is
refused when the base address is on this machine.
"""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import requests
import stripe

from billing.payments.provider import (
    CardDeclined,
    ProviderFault,
    ProviderNotConfigured,
    ProviderRefused,
    ProviderUnavailable,
)

API_VERSION = "2026-10-28.endive"
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
NETWORK_RETRIES = 2
LIST_PAGE = 100
LOOPBACK_HOSTS = {"127.0.0.1", "localhost", "::1"}
KEY_SHAPE = re.compile(r"(sk|rk)_(test|live)_[A-Za-z0-9_]{8,}")
LIVE_PREFIXES = ("sk_live_", "rk_live_")

# How one kind of send is made: of the v1 API, its target, what it carries, its options.
Send = Callable[[Any, str, dict[str, Any], dict[str, str]], str]

stripe.enable_telemetry = False
logging.getLogger("stripe").setLevel(logging.WARNING)  # two lines per call say nothing we do not


class Client:
    """A key and the address it is for. The parts of the adapter extend it."""

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


def _session(api_base: str) -> requests.Session:
    """A proxy from the environment must not be handed what is meant for this machine."""
    session = requests.Session()
    session.trust_env = urlsplit(api_base).hostname not in LOOPBACK_HOSTS
    return session


@contextmanager
def translated() -> Iterator[None]:
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
