"""What an installation may say of its Stripe account, looked at before anything is called.

Each function returns what is wrong as a sentence that names the variable and says what to do, or an
empty string. No sentence holds more of a key than its first `SHOWN_CHARS` characters. Imports
neither Django nor Stripe's library, so that settings and `manage.py doctor` can ask before either.
"""

import re
from urllib.parse import urlsplit

API_VERSION = "2026-10-28.endive"
KEY_SHAPE = re.compile(r"(sk|rk)_(test|live)_[A-Za-z0-9_]{8,}")
WEBHOOK_SECRET_SHAPE = re.compile(r"whsec_[A-Za-z0-9+/=_-]{16,}")
LIVE_PREFIXES = ("sk_live_", "rk_live_")
RESTRICTED_PREFIX = "rk_"
LOOPBACK_HOSTS = {"127.0.0.1", "localhost", "::1"}
WEBHOOK_PATH = "/webhooks/stripe"
SECRETS_MAX = 2  # an endpoint signs with two while its secret is being replaced, never with more
SHOWN_CHARS = 8  # as far as the part that says what kind of key it is
PRODUCTION = "production"
NO_PROVIDER = "none"  # of PAYMENT_PROVIDER

_WHERE_KEYS_ARE = "Stripe's dashboard shows keys under Developers, API keys"
_NO_PROVIDER = "or PAYMENT_PROVIDER=none, if nothing is collected through a provider"


def is_live(key: str) -> bool:
    """True for a key that moves real money."""
    return key.startswith(LIVE_PREFIXES)


def shown(secret: str) -> str:
    """As much of a key as may be printed."""
    return f"{secret[:SHOWN_CHARS]}…" if len(secret) > SHOWN_CHARS else "…"


def key_fault(key: str) -> str:
    """Of STRIPE_API_KEY, by itself."""
    if not key:
        return (
            "STRIPE_API_KEY is empty: set it to a secret or restricted key, sk_... or rk_..."
            f" ({_WHERE_KEYS_ARE}), {_NO_PROVIDER}."
        )
    if KEY_SHAPE.fullmatch(key):
        return ""
    if key.strip() != key:
        return "STRIPE_API_KEY has white space around it: remove it."
    if key.startswith("pk_"):
        return (
            "STRIPE_API_KEY is a publishable key, which can do nothing here: set it to the secret"
            f" key beside it, sk_... ({_WHERE_KEYS_ARE})."
        )
    return (
        f"STRIPE_API_KEY ({shown(key)}) is no key of Stripe's: it must be one of sk_test_...,"
        f" sk_live_..., rk_test_... and rk_live_... ({_WHERE_KEYS_ARE})."
    )


def base_fault(base: str) -> str:
    """Of STRIPE_API_BASE, by itself. Empty is Stripe."""
    parts = urlsplit(base)
    if not base or (parts.scheme in {"http", "https"} and parts.hostname):
        return ""
    return (
        "STRIPE_API_BASE must be a URL such as http://127.0.0.1:8703, the sandbox's, or empty, for"
        " Stripe itself."
    )


def place_fault(key: str, base: str) -> str:
    """Of sending this key there."""
    if not base or not is_live(key):
        return ""
    parts = urlsplit(base)
    if parts.hostname in LOOPBACK_HOSTS:
        return (
            f"STRIPE_API_KEY ({shown(key)}) is a live key and STRIPE_API_BASE is on this machine,"
            " where only a sandbox can be: leave STRIPE_API_BASE empty, or use a test key."
        )
    if parts.scheme != "https":
        return (
            f"STRIPE_API_KEY ({shown(key)}) is a live key and STRIPE_API_BASE would carry it in"
            " clear text: leave STRIPE_API_BASE empty, or begin it with https://."
        )
    return ""


def mode_fault(key: str, environment: str) -> str:
    """Of the key's mode in this environment: real money is moved in production and only there."""
    if is_live(key) and environment != PRODUCTION:
        return (
            f"STRIPE_API_KEY ({shown(key)}) is a live key and METERPLANE_ENV is {environment}: real"
            " customers would be charged. Use a test key, or set METERPLANE_ENV=production."
        )
    if not is_live(key) and environment == PRODUCTION:
        return (
            f"STRIPE_API_KEY ({shown(key)}) is a test key and METERPLANE_ENV is production: no"
            " customer would be charged. Use a live key, or set METERPLANE_ENV=development."
        )
    return ""


def account_fault(key: str, base: str, environment: str) -> str:
    """Of all of it but the webhook secrets; the first that there is."""
    return (
        key_fault(key) or base_fault(base) or place_fault(key, base) or mode_fault(key, environment)
    )


def secrets_fault(text: str) -> str:
    """Of STRIPE_WEBHOOK_SECRET: one, or two with a comma between them during a rotation."""
    secrets = webhook_secrets(text)
    if not secrets:
        return (
            "STRIPE_WEBHOOK_SECRET is empty, so no webhook could be believed: set it to the signing"
            " secret of the endpoint, whsec_... (Stripe's dashboard shows it under Developers,"
            f" Webhooks), {_NO_PROVIDER}."
        )
    if len(secrets) > SECRETS_MAX:
        return (
            f"STRIPE_WEBHOOK_SECRET has {len(secrets)} secrets: it takes one, or two during a"
            " rotation, the newest first."
        )
    for number, secret in enumerate(secrets, 1):
        if not WEBHOOK_SECRET_SHAPE.fullmatch(secret):
            return (
                f"STRIPE_WEBHOOK_SECRET, secret {number} of {len(secrets)} ({shown(secret)}), is no"
                " signing secret: it must begin with whsec_."
            )
    return ""


def webhook_secrets(text: str) -> list[str]:
    """The secrets that `text` lists, newest first."""
    return [part.strip() for part in text.split(",") if part.strip()]
