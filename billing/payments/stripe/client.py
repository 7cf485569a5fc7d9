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
from dataclasses import dataclass
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
from billing.payments.stripe_settings import (
    API_VERSION,
    LOOPBACK_HOSTS,
    base_fault,
    is_live,
    key_fault,
    place_fault,
)
from meterplane.kernel.failpoints import failpoint
from meterplane.kernel.invariant import ensure

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

# How one kind of send is made: of the v1 API, its target, what it carries, its options.
Send = Callable[[Any, str, dict[str, Any], dict[str, str]], str]

ensure(
    stripe.api_version == API_VERSION,
    f"The installed stripe package speaks {stripe.api_version}, and we are written for"
    f" {API_VERSION}: install the package that uv.lock names.",
)
stripe.enable_telemetry = False
logging.getLogger("stripe").setLevel(logging.WARNING)  # two lines per call say nothing we do not


class _Error(msgspec.Struct):
    code: str = ""


class _Refusal(msgspec.Struct):
    error: _Error


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one call may take, and how often it is repeated: `retries` times for want of an
    answer, and after each of `pauses_s` where it came too fast."""

    connect_s: int = CONNECT_TIMEOUT_S
    read_s: int = READ_TIMEOUT_S
    retries: int = NETWORK_RETRIES
    pauses_s: tuple[int, ...] = PAUSES_S


PATIENT = Patience()


class Client:
    """A key and the address it is for. The parts of the adapter extend it."""

    def __init__(
        self,
        api_key: str,
        api_base: str = "",
        pace: Pace | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Raises `ProviderNotConfigured` for a key that cannot be meant."""
        _check(api_key, api_base)
        patience = patience or PATIENT
        self.is_live = is_live(api_key)
        bases = ("api", "files", "connect", "meter_events")
        self._client = stripe.StripeClient(
            api_key,
            base_addresses=dict.fromkeys(bases, api_base.rstrip("/")) if api_base else {},  # type: ignore[arg-type]
            http_client=_Requests(_session(api_base), pace, patience),
            max_network_retries=patience.retries,
            stripe_version=API_VERSION,
        )


class _Requests(stripe.RequestsClient):
    """Stripe's own HTTP client, each of whose calls waits for its turn."""

    def __init__(self, session: requests.Session, pace: Pace | None, patience: Patience) -> None:
        super().__init__(timeout=(patience.connect_s, patience.read_s), session=session)
        self._pace = pace
        self._pauses_s = patience.pauses_s

    def request(  # type: ignore[override]  # its base names a parameter that it does not take
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """One call; repeated while it is refused as too fast, after each pause."""
        endpoint = endpoint_of(method, url)
        for pause_s in (*self._pauses_s, None):
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


def _check(api_key: str, api_base: str) -> None:
    if fault := key_fault(api_key):
        raise ProviderNotConfigured("stripe_key_invalid", fault)
    if fault := base_fault(api_base) or place_fault(api_key, api_base):
        raise ProviderNotConfigured("stripe_base_invalid", fault)
