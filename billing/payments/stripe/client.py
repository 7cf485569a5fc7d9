"""One client of Stripe's, configured safely or not at all, and its exceptions as the port's.

Every call carries our pinned API version. Telemetry is off, waits are bounded. A live key is
refused when the base address is on this machine. With a pace, each call waits for its turn, the
retries of Stripe's client too; refused as too fast, it is repeated with the same key.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import msgspec
import requests
import stripe

from billing.payments.pace import Pace
from billing.payments.provider import (
    CardDeclined,
    ProviderFault,
    ProviderNotConfigured,
    ProviderRefused,
    ProviderUnavailable,
)
from meterplane.kernel.failpoints import failpoint

API_VERSION = "2026-10-28.endive"
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
NETWORK_RETRIES = 2
LIST_PAGE = 100
TOO_FAST = 429
# Before the same call is made again: 7 s at most, as an answer of 429 takes no time to come.
PAUSES_S = (1, 2, 4)
# What ids begin with, of the objects that are called for here. A folder's name has no such shape.
ID_SHAPE = re.compile(
    r"/(cus|in|il|ii|inpay|pm|pi|seti|cn|cnli|re|pyr|ch|py|dp|du|evt|we|cs|bps|prod|price|txr|cbtxn)"
    r"_[A-Za-z0-9_]+(?=/|$)"
)
LOOPBACK_HOSTS = {"127.0.0.1", "localhost", "::1"}
KEY_SHAPE = re.compile(r"(sk|rk)_(test|live)_[A-Za-z0-9_]{8,}")
LIVE_PREFIXES = ("sk_live_", "rk_live_")

# How one kind of send is made: of the v1 API, its target, what it carries, its options.
Send = Callable[[Any, str, dict[str, Any], dict[str, str]], str]

stripe.enable_telemetry = False
logging.getLogger("stripe").setLevel(logging.WARNING)  # two lines per call say nothing we do not


class _Error(msgspec.Struct):
    code: str = ""


class _Refusal(msgspec.Struct):
    error: _Error


class Client:
    """A key and the address it is for. The parts of the adapter extend it."""

    def __init__(self, api_key: str, api_base: str = "", pace: Pace | None = None) -> None:
        """Raises `ProviderNotConfigured` for a key that cannot be meant."""
        self.is_live = api_key.startswith(LIVE_PREFIXES)
        _check(api_key, api_base, self.is_live)
        bases = ("api", "files", "connect", "meter_events")
        self._client = stripe.StripeClient(
            api_key,
            base_addresses=dict.fromkeys(bases, api_base.rstrip("/")) if api_base else {},  # type: ignore[arg-type]
            http_client=_Requests(_session(api_base), pace),
            max_network_retries=NETWORK_RETRIES,
            stripe_version=API_VERSION,
        )


class _Requests(stripe.RequestsClient):
    """Stripe's own HTTP client, each of whose calls waits for its turn."""

    def __init__(self, session: requests.Session, pace: Pace | None) -> None:
        super().__init__(timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S), session=session)
        self._pace = pace

    def request(  # type: ignore[override]  # its base names a parameter that it does not take
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """One call; repeated while it is refused as too fast, after each of `PAUSES_S`."""
        endpoint = endpoint_of(method, url)
        for pause_s in (*PAUSES_S, None):
            if self._pace is not None:
                self._pace.take_turn(endpoint)
            failpoint("payments.call.before_send")
            answer = super().request(method, url, headers, post_data)
            failpoint("payments.call.after_answer")  # and before anybody has noted it
            if answer[1] != TOO_FAST or pause_s is None:
                break
            if self._pace is None or _is_locked(answer[0]):
                time.sleep(pause_s)  # an object is in use: others' calls may go on
            else:
                self._pace.hold(endpoint, pause_s)
        return answer


def endpoint_of(method: str, url: str) -> str:
    """What Stripe counts calls by: the verb and the path, whichever object it is about."""
    return f"{method.upper()} {ID_SHAPE.sub('/{id}', urlsplit(url).path)}"


def _is_locked(body: bytes) -> bool:
    """A 429 that is about an object which another request holds, and not about speed."""
    try:
        return bool(msgspec.json.decode(body, type=_Refusal).error.code == "lock_timeout")
    except msgspec.DecodeError:
        return False


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
