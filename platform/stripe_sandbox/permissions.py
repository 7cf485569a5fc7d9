"""Restricted keys: what a key that begins with `rk_` may do, as the control door was told.

A restricted key nobody told of may do everything: which rights it has is not in the key. Rights
are named as Stripe's refusals name them, `rak_<resource>_<read or write>`; who may write may read.
They are forgotten when the sandbox ends, as faults are.
"""

from collections.abc import Iterable, Mapping

from stripe_sandbox.accounts import ACCOUNT_ID
from stripe_sandbox.errors import StripeError, refused

RESTRICTED_PREFIX = "rk_test_"
MAX_KEYS = 100
# What Stripe calls the right to what a path begins with. Refunds are read with their charges.
RESOURCES: Mapping[str, str] = {
    "account": "accounts_kyc_basic",
    "balance_transactions": "balance_transaction_source",
    "billing_portal": "customer_portal",
    "charges": "charge",
    "checkout": "checkout_session",
    "core": "event",
    "credit_notes": "credit_note",
    "customers": "customer",
    "disputes": "dispute",
    "events": "event",
    "invoice_payments": "invoice",
    "invoiceitems": "invoice",
    "invoices": "invoice",
    "payment_intents": "payment_intent",
    "payment_methods": "payment_method",
    "prices": "plan",
    "products": "product",
    "refunds": "charge",
    "setup_intents": "setup_intent",
    "tax_rates": "tax_rate",
    "test_helpers": "test_clock",
    "webhook_endpoints": "webhook",
}
RIGHTS = frozenset(
    f"rak_{resource}_{deed}" for resource in RESOURCES.values() for deed in ("read", "write")
)


class Permissions:
    """Of the running process."""

    def __init__(self) -> None:
        self._rights: dict[str, frozenset[str]] = {}

    def restrict(self, key: str, rights: Iterable[str]) -> list[str]:
        """From now on `key` may do this and nothing else; its rights."""
        given = frozenset(rights)
        if not key.startswith(RESTRICTED_PREFIX):
            raise refused(f"Only a key that begins with {RESTRICTED_PREFIX} is.", param="key")
        if unknown := given - RIGHTS:
            raise refused(f"Unknown: {', '.join(sorted(unknown))}.", param="permissions")
        if key not in self._rights and len(self._rights) == MAX_KEYS:
            raise refused(f"There are {MAX_KEYS} restricted keys already.", param="key")
        self._rights[key] = given
        return sorted(given)

    def keys(self) -> frozenset[str]:
        """Those that were told of: they are accepted beside the sandbox's own."""
        return frozenset(self._rights)

    def check(self, key: str, shown: str, method: str, path: str) -> None:
        """403 where the right is missing, in Stripe's words."""
        rights = self._rights.get(key)
        resource = RESOURCES.get(path.split("/")[2] if path.count("/") > 1 else "")
        if rights is None or resource is None:
            return
        writing = f"rak_{resource}_write"
        needed = f"rak_{resource}_read" if method == "GET" else writing
        if needed in rights or writing in rights:
            return
        raise StripeError(
            403,
            f"The provided key '{shown}' does not have the required permissions for this endpoint"
            f" on account '{ACCOUNT_ID}'. Having the '{needed}' permission would allow this request"
            " to continue.",
        )
