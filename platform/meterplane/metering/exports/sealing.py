"""Secrets of others at rest: sealed with a key that is derived from the installation's secret key.

Whoever reads the database alone reads nothing; a copy of it under another `DJANGO_SECRET_KEY` opens
nothing, and the secrets are entered anew.
"""

import base64

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from meterplane.kernel.errors import WorldError

_PURPOSE = b"meterplane secrets of export destinations"


def seal(secret: str) -> str:
    """What may be stored of a secret."""
    return _fernet().encrypt(secret.encode()).decode()


def unseal(sealed: str) -> str:
    """The secret. Raises `WorldError` `secret_unreadable`."""
    try:
        return _fernet().decrypt(sealed.encode()).decode()
    except InvalidToken:
        raise WorldError(
            "secret_unreadable",
            "The stored secret cannot be opened with this DJANGO_SECRET_KEY; enter it again.",
        ) from None


def _fernet() -> Fernet:
    derive = HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE)
    return Fernet(base64.urlsafe_b64encode(derive.derive(settings.SECRET_KEY.encode())))
