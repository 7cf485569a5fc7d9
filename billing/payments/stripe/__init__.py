"""The Stripe adapter: the only importer of `stripe`.

Guarantees: every call carries our pinned API version, an explicit idempotency key and its frozen
parameters; amounts are integers; every foreign exception becomes one of `provider`'s.
"""

from billing.payments.stripe.account import Stripe, provider
from billing.payments.stripe.events import read_event
from billing.payments.stripe_settings import API_VERSION

__all__ = ["API_VERSION", "Stripe", "provider", "read_event"]
