"""Organisations that are the installation's own, told apart by a slug that nobody else can take.

Their usage goes the way of everybody's, and is summed up with it; they are never invoiced, and no
person signs in for them. A slug and not a column: it is unique, never changed, and says what it is
wherever an organisation is named.
"""

from tenants.models import Organisation

CANARY_SLUG = "meterplane-canary"
SLUGS = frozenset({CANARY_SLUG})


def is_synthetic(organisation: Organisation) -> bool:
    """True of one that is the installation's own."""
    return organisation.slug in SLUGS
