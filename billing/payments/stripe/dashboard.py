"""Where an operator looks at an object of Stripe's: its dashboard, or the sandbox's own page."""

import re

from django.conf import settings

from billing.payments.stripe_settings import is_live

DASHBOARD = "https://dashboard.stripe.com"
_ID = re.compile(r"(cus|in|pi|re|cn|dp|du|cs)_[A-Za-z0-9_]+")
# Where the dashboard has no page for each of a kind, an id is looked up as a person would.
_FOLDERS = {"cus": "customers", "in": "invoices", "pi": "payments"}


def page_of(their_id: str) -> str:
    """Empty for what has no page. Calls nobody."""
    shape = _ID.fullmatch(their_id)
    if shape is None or not settings.STRIPE_API_KEY:
        return ""
    if settings.STRIPE_API_BASE:
        return f"{settings.STRIPE_API_BASE.rstrip('/')}/objects/{their_id}"
    mode = "" if is_live(settings.STRIPE_API_KEY) else "/test"
    folder = _FOLDERS.get(shape[1])
    if folder is None:
        return f"{DASHBOARD}{mode}/search?query={their_id}"
    return f"{DASHBOARD}{mode}/{folder}/{their_id}"
