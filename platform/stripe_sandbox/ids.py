"""Identifiers in Stripe's form: a prefix that names the kind and a random tail.

Random, not ordered: a client that sorts by id instead of `created` should fail here too.
"""

import secrets
import string

_ALPHABET = string.ascii_letters + string.digits
_PREFIX_ALPHABET = string.ascii_uppercase + string.digits


def new(prefix: str, chars: int = 24) -> str:
    """For example `in_1aB...`; 24 base-62 characters are 142 bits."""
    return f"{prefix}_" + "".join(secrets.choice(_ALPHABET) for _ in range(chars))


def invoice_prefix() -> str:
    """Eight upper-case characters, the first part of every invoice number of one customer."""
    return "".join(secrets.choice(_PREFIX_ALPHABET) for _ in range(8))


def secret(prefix: str) -> str:
    """A signing secret or page token; 32 base-62 characters are 190 bits."""
    return new(prefix, 32)
