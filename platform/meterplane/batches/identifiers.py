"""The ids callers see: `file-<32 hex>` and `batch_<32 hex>`, a UUIDv7 behind a prefix."""

import re
from uuid import UUID

FILE = "file-"
BATCH = "batch_"
REQUEST = "batch_req_"
_HEX = re.compile(r"[0-9a-f]{32}")


def shown(prefix: str, identifier: UUID) -> str:
    """As callers see it."""
    return prefix + identifier.hex


def parse(prefix: str, text: object) -> UUID | None:
    """The id behind the text; None for anything that never was one of ours."""
    if not isinstance(text, str) or not text.startswith(prefix):
        return None
    digits = text[len(prefix) :]
    return UUID(hex=digits) if _HEX.fullmatch(digits) else None
