"""Idempotency keys: one execution per key, its answer replayed for 24 hours.

The result is saved in the transaction of the execution itself, so a crash leaves both or neither.
Saved are answers of acts that began (errors of the card or of state, 500s); not saved are requests
that failed validation or met the same key still running. Keys of different API keys share one
space, as all of them are one sandbox account.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from stripe_sandbox import forms
from stripe_sandbox.errors import StripeError, refused
from stripe_sandbox.store import Store

KEPT_S = 24 * 3600
MAX_KEY_CHARS = 255

_KIND = "idempotency_error"


@dataclass(frozen=True, slots=True)
class Saved:
    """An answer given once."""

    request_id: str
    status: int
    body: dict[str, Any]


def fingerprint(method: str, path: str, form: str) -> str:
    """Equal for requests that ask the same, whatever the order of their parameters."""
    asked = json.dumps([method, path, forms.flat(form)])
    return hashlib.sha256(asked.encode()).hexdigest()


def check_key(key: str) -> None:
    """400 for a key Stripe would not take."""
    if not key or len(key) > MAX_KEY_CHARS:
        raise refused(f"Idempotency keys have 1 to {MAX_KEY_CHARS} characters.")


def replay(store: Store, key: str, asked: str, now: int) -> Saved | None:
    """The saved answer; None for a fresh key; 400 when the key was used for something else."""
    row = store.connection.execute(
        "SELECT fingerprint, request_id, status, body FROM idempotent_result"
        " WHERE key = ? AND saved_at > ?",
        (key, now - KEPT_S),
    ).fetchone()
    if row is None:
        return None
    if row[0] != asked:
        raise StripeError(
            400,
            "Keys for idempotent requests can only be used with the same parameters they were "
            f"first used with. Try using a key other than '{key}' if you meant to execute a "
            "different request.",
            kind=_KIND,
        )
    return Saved(row[1], row[2], json.loads(row[3]))


def save(store: Store, key: str, asked: str, answer: Saved, now: int) -> None:
    """Keep an answer; an expired one under the same key gives way."""
    store.connection.execute(
        "INSERT OR REPLACE INTO idempotent_result VALUES (?, ?, ?, ?, ?, ?)",
        (key, asked, answer.request_id, answer.status, json.dumps(answer.body), now),
    )


def prune(store: Store, now: int) -> None:
    """Forget keys after 24 hours."""
    store.connection.execute("DELETE FROM idempotent_result WHERE saved_at <= ?", (now - KEPT_S,))


def in_use(key: str) -> StripeError:
    """409: the first request with this key has not been answered yet."""
    return StripeError(
        409,
        "There is currently another in-progress request using this Idempotent Key (that probably "
        f"means you submitted twice, and the other request is still going through): {key}. Please "
        "try again later.",
        kind=_KIND,
        code="idempotency_key_in_use",
    )
