"""A pass for one line of a batch: lets a worker call the gateway as a key whose secret nobody has.

The control plane signs it with the installation's pepper, which it shares with the gateways and
with nobody else; the gateway reads the key's policy by the digest inside, so a revoked key's batch
stops like the key. Sent as `Authorization: Meterplane-Batch <pass>`. It carries the request id of
the line: a line that runs again after a crash is the same usage event.
"""

import base64
import hashlib
import hmac
from uuid import UUID

import msgspec

SCHEME = b"meterplane-batch"
PASS_CHARS_MAX = 512
_PURPOSE = b"meterplane batch pass v1\0"  # a digest under the same pepper can never be a pass


class BatchPass(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls, and which request this is. `digest` is the key's, 32 bytes."""

    digest: bytes
    request_id: UUID
    batch_id: UUID
    expires_at_ms: int


def sign(batch_pass: BatchPass, pepper: bytes) -> str:
    """The pass as text: base64url of its JSON, a dot, base64url of its HMAC-SHA-256."""
    body = base64.urlsafe_b64encode(msgspec.json.encode(batch_pass))
    return (body + b"." + base64.urlsafe_b64encode(_mac(body, pepper))).decode()


def verify(text: bytes, pepper: bytes, now_ms: int) -> BatchPass | None:
    """The pass, or None when it was not signed with this pepper, was altered, or has expired."""
    body, _, mac = text.partition(b".")
    if len(text) > PASS_CHARS_MAX:
        return None
    if not hmac.compare_digest(base64.urlsafe_b64encode(_mac(body, pepper)), mac):
        return None
    batch_pass = msgspec.json.decode(base64.urlsafe_b64decode(body), type=BatchPass)
    return batch_pass if now_ms < batch_pass.expires_at_ms else None


def _mac(body: bytes, pepper: bytes) -> bytes:
    return hmac.digest(pepper, _PURPOSE + body, hashlib.sha256)
