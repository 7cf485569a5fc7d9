"""Everything secret that one installation generates for itself, once, in one private file.

No secret has a default and none is shared between installations. The demo's keys are kept here in
the clear, unlike any other key, because `make up` prints them again at every start.
"""

import secrets
from pathlib import Path
from typing import Self

import msgspec

from meterplane.stack.layout import Layout, write_private

OWNER_EMAIL = "owner@demo.example"
OPERATOR_EMAIL = "operator@meterplane.example"
DATABASE_ROLES = ("meterplane_owner", "meterplane_app", "meterplane_gateway")


class Login(msgspec.Struct, frozen=True):
    """One person who can sign in."""

    email: str
    password: str


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. The last four are filled in when the part that makes them has run."""

    postgres_password: str
    database_passwords: dict[str, str]
    broker_password: str
    admission_password: str
    api_key_pepper: str
    django_secret_key: str
    stripe_api_key: str
    owner: Login
    operator: Login
    receipt_signing_keys: str = ""  # of an installation older than receipts, until it is loaded
    stripe_webhook_secret: str = ""
    stripe_webhook_endpoint: str = ""
    demo_api_key: str = ""
    admin_key: str = ""

    @classmethod
    def generate(cls) -> Self:
        """A new installation's."""
        return cls(
            postgres_password=secrets.token_hex(24),
            database_passwords={role: secrets.token_hex(24) for role in DATABASE_ROLES},
            broker_password=secrets.token_hex(24),
            admission_password=secrets.token_hex(24),
            api_key_pepper=secrets.token_hex(32),
            django_secret_key=secrets.token_urlsafe(48),
            receipt_signing_keys=secrets.token_hex(32),
            stripe_api_key=f"sk_test_{secrets.token_hex(16)}",
            owner=Login(OWNER_EMAIL, _password()),
            operator=Login(OPERATOR_EMAIL, _password()),
        )


def load(layout: Layout) -> Secrets:
    """This installation's secrets; generated and stored at the first call."""
    try:
        found = read(layout.secrets)
    except FileNotFoundError:
        found = Secrets.generate()
    else:
        if found.receipt_signing_keys:
            return found
        found = msgspec.structs.replace(found, receipt_signing_keys=secrets.token_hex(32))
    store(layout, found)
    return found


def read(path: Path) -> Secrets:
    """The secrets in `path`. Raises FileNotFoundError, or ValueError naming a damaged file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Secrets)
    except msgspec.DecodeError as damage:
        raise ValueError(
            f"{path} is damaged ({damage}). Restore it from a backup: without it the data under "
            f"{path.parent} cannot be opened. `manage.py up --reset` starts afresh."
        ) from None


def store(layout: Layout, content: Secrets) -> None:
    """Replace the stored secrets."""
    write_private(layout.secrets, msgspec.json.encode(content))


def update(layout: Layout, **changes: str) -> Secrets:
    """Store `changes` beside what is there. Callers take turns: one supervisor, one demo step."""
    changed = msgspec.structs.replace(load(layout), **changes)
    store(layout, changed)
    return changed


def _password() -> str:
    # Four groups are easy to copy by eye; 31**16 is about 79 bits.
    alphabet = "abcdefghjkmnpqrstuvwxyz23456789"
    groups = ("".join(secrets.choice(alphabet) for _ in range(4)) for _ in range(4))
    return "-".join(groups)
