"""API keys: their form, and the digest they are stored and looked up by.

`mp_live_<43 base62><6 base62 CRC32>`: 256 random bits, recognisable to secret scanners, selectable
with a double click, and refused without any read when mistyped. The CRC covers everything before
it. Stored as HMAC-SHA-256 under the installation's pepper: a dump of the table yields no usable
key, and a fast hash is right at 256 bits of entropy (NIST SP 800-63B, ASVS 6.5.2).
"""

import hashlib
import hmac
import secrets
import zlib
from dataclasses import dataclass
from typing import Literal

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SECRET_CHARS = 43  # 62**43 > 2**256
CHECKSUM_CHARS = 6  # 62**6 > 2**32

KeyKind = Literal["live", "admin"]
PREFIXES: dict[KeyKind, str] = {"live": "mp_live_", "admin": "mp_admin_"}
_DIGITS = frozenset(ALPHABET)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A freshly minted key. `secret` is shown once; `digest` and `last4` are stored."""

    secret: str
    digest: bytes
    prefix: str
    last4: str


def mint(kind: KeyKind, pepper: bytes) -> NewKey:
    """Make a key of 256 random bits. Only the digest may be stored."""
    prefix = PREFIXES[kind]
    body = prefix + _base62(int.from_bytes(secrets.token_bytes(32), "big"), SECRET_CHARS)
    secret = body + _checksum(body)
    return NewKey(secret, digest(secret, pepper), prefix, secret[-4:])


def is_well_formed(candidate: str, kind: KeyKind = "live") -> bool:
    """True if prefix, length, alphabet and CRC32 hold. No I/O; safe on any input."""
    prefix = PREFIXES[kind]
    if len(candidate) != len(prefix) + SECRET_CHARS + CHECKSUM_CHARS:
        return False
    if not candidate.startswith(prefix) or not _DIGITS.issuperset(candidate[len(prefix) :]):
        return False
    return candidate[-CHECKSUM_CHARS:] == _checksum(candidate[:-CHECKSUM_CHARS])


def digest(secret: str, pepper: bytes) -> bytes:
    """HMAC-SHA-256 of the whole key, 32 bytes. Raises ValueError without a pepper."""
    if len(pepper) < 32:
        raise ValueError("the API key pepper must be at least 32 bytes")
    return hmac.digest(pepper, secret.encode(), hashlib.sha256)


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), CHECKSUM_CHARS)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, remainder = divmod(number, 62)
        digits.append(ALPHABET[remainder])
    return "".join(reversed(digits))
