"""The door: whose key, which version, which host. Decided from headers alone, before any body.

Live keys are turned away in words that say why. A `Host` header that is not this machine is
refused too, so that a web page elsewhere cannot reach the sandbox through a name it rebinds.
"""

import base64
import binascii
import hmac
from collections.abc import Collection, Mapping

from stripe_sandbox import API_VERSION
from stripe_sandbox.errors import StripeError
from stripe_sandbox.webhook_endpoints import is_loopback

_TEST_PREFIXES = ("sk_test_", "rk_test_")
_LIVE_PREFIXES = ("sk_live_", "rk_live_")


def check(
    headers: Mapping[str, str], expected_key: str | None, others: Collection[str] = ()
) -> str:
    """The key. 401 for one that is not expected nor of `others`, 400 for a wrong version."""
    key = _presented(headers.get("authorization", ""))
    if key not in others:
        _check_key(key, expected_key)
    version = headers.get("stripe-version")
    if version is not None and version != API_VERSION:
        raise StripeError(
            400,
            f"Invalid Stripe API version: {version[:40]}. The sandbox speaks {API_VERSION} only.",
        )
    return key


def host_is_local(headers: Mapping[str, str]) -> bool:
    """True when the request was addressed to this machine by a name that can only mean it."""
    host = headers.get("host", "")
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return is_loopback(name.strip("[]"))


def _presented(authorization: str) -> str:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


def _check_key(key: str, expected_key: str | None) -> None:
    if not key:
        raise StripeError(
            401,
            "You did not provide an API key. You need to provide your API key in the Authorization "
            "header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
        )
    if key.startswith(_LIVE_PREFIXES):
        raise StripeError(
            401,
            "This is the Stripe sandbox and you sent a LIVE key. It was refused and not stored. "
            "Use a test key here, or send live keys to https://api.stripe.com only.",
            code="livemode_mismatch",
        )
    if not key.startswith(_TEST_PREFIXES) or not _matches(key, expected_key):
        raise StripeError(401, f"Invalid API Key provided: {masked(key)}")


def _matches(key: str, expected_key: str | None) -> bool:
    return expected_key is None or hmac.compare_digest(key.encode(), expected_key.encode())


def masked(key: str) -> str:
    """As Stripe shows a key again: its kind and its last characters."""
    return f"{key[:8]}{'*' * 8}{key[-4:]}" if len(key) > 16 else "*" * len(key)
