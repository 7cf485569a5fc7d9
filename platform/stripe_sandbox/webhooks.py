"""Telling endpoints: signed, at least once, in no promised order, with patience.

Pending deliveries are rows; this module claims what is due, posts it outside any transaction and
writes the outcome. A crash between the two posts again: receivers dedupe by event id. Anything but
2xx is a failure (redirects too). Waits double from the first retry's to one hour; after three days
a delivery is abandoned, as Stripe does in live mode.
"""

import hashlib
import hmac
import http.client
import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from stripe_sandbox import clock, settings
from stripe_sandbox.events import with_pending
from stripe_sandbox.store import Store

MAX_WAIT_MS = 3_600_000
ABANDONED_AFTER_MS = 3 * 24 * 3_600_000
ANSWER_WITHIN_S = 10.0
MAX_ANSWER_BYTES = 65_536
BATCH = 16

log = logging.getLogger("stripe_sandbox.webhooks")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one endpoint."""

    id: int
    event_id: str
    event_type: str
    url: str
    secrets: tuple[str, ...]
    body: bytes
    attempts: int
    first_at_ms: int


def due(store: Store, now_ms: int, busy: Collection[int]) -> list[Delivery]:
    """Deliveries whose time has come and that nobody is posting, earliest first."""
    if settings.read(store, "webhook_hold"):
        return []
    rows = store.connection.execute(
        "SELECT id, event, endpoint, attempts, first_at_ms FROM delivery"
        " WHERE state = 'pending' AND next_at_ms <= ? ORDER BY next_at_ms, id LIMIT ?",
        (now_ms, BATCH + len(busy)),
    ).fetchall()
    found = []
    for row_id, event_id, endpoint_id, attempts, first_at_ms in rows:
        if row_id in busy:
            continue
        event = store.find("event", event_id)
        endpoint = store.find("webhook_endpoint", endpoint_id)
        if event is None or endpoint is None or endpoint["status"] != "enabled":
            _abandon(store, row_id, "endpoint disabled or gone")
            continue
        now_s = now_ms // 1000
        old = [each for each, until in endpoint.get("_old_secrets", ()) if now_s < until]
        body = json.dumps(with_pending(store, event), indent=2).encode()
        found.append(
            Delivery(
                row_id,
                event_id,
                event["type"],
                endpoint["url"],
                (endpoint["_secret"], *old),
                body,
                attempts,
                first_at_ms,
            )
        )
    return found[:BATCH]


def next_due_ms(store: Store, busy: Collection[int]) -> int | None:
    """When the earliest pending delivery that nobody is posting wants its attempt."""
    if settings.read(store, "webhook_hold"):
        return None
    rows = store.connection.execute(
        "SELECT id, next_at_ms FROM delivery WHERE state = 'pending' ORDER BY next_at_ms LIMIT ?",
        (len(busy) + 1,),
    ).fetchall()
    return next((int(at_ms) for row_id, at_ms in rows if row_id not in busy), None)


def sign(secret: str, body: bytes, at_s: int, *older: str) -> str:
    """The `Stripe-Signature` header: HMAC-SHA256 over `timestamp.body`, by every valid secret."""
    signed = f"{at_s}.".encode() + body
    digests = (
        hmac.new(each.encode(), signed, hashlib.sha256).hexdigest() for each in (secret, *older)
    )
    return ",".join((f"t={at_s}", *(f"v1={digest}" for digest in digests)))


def _signature(delivery: Delivery) -> str:
    secret, *older = delivery.secrets
    return sign(secret, delivery.body, clock.true_s(), *older)


def post(delivery: Delivery) -> str | None:
    """Send it; None when confirmed, else why not. Blocks up to ten seconds per step."""
    parts = urlsplit(delivery.url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = http.client.HTTPConnection(
        parts.hostname or "", parts.port or 80, timeout=ANSWER_WITHIN_S
    )
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Stripe-Signature": _signature(delivery),
        "User-Agent": "Stripe/1.0 (sandbox)",
    }
    try:
        connection.request("POST", target, body=delivery.body, headers=headers)
        answer = connection.getresponse()
        answer.read(MAX_ANSWER_BYTES)
        return None if 200 <= answer.status < 300 else f"HTTP {answer.status}"
    except (OSError, http.client.HTTPException) as failed:
        return f"{type(failed).__name__}: {failed}"[:200]
    finally:
        connection.close()


def record(store: Store, delivery: Delivery, failure: str | None, retry_ms: int) -> None:
    """Write the outcome and, after a failure, when to try again."""
    attempts = delivery.attempts + 1
    now_ms = clock.now_ms()
    if failure is None:
        store.connection.execute(
            "UPDATE delivery SET state = 'delivered', attempts = ?, last_answer = '2xx'"
            " WHERE id = ?",
            (attempts, delivery.id),
        )
        return
    wait_ms = min(retry_ms * 2 ** min(delivery.attempts, 20), MAX_WAIT_MS)
    if now_ms + wait_ms > delivery.first_at_ms + ABANDONED_AFTER_MS:
        _abandon(store, delivery.id, failure)
        log.warning("gave up delivering %s (%s)", delivery.event_id, failure)
        return
    store.connection.execute(
        "UPDATE delivery SET attempts = ?, last_answer = ?, next_at_ms = ? WHERE id = ?",
        (attempts, failure, now_ms + wait_ms, delivery.id),
    )
    log.warning(
        "%s %s not delivered (%s), attempt %d, again in %.1f s",
        delivery.event_id,
        delivery.event_type,
        failure,
        attempts,
        wait_ms / 1000,
    )


def schedule(store: Store, rows: Sequence[int], from_ms: int, spacing_ms: int) -> None:
    """Give deliveries their turn, one after another."""
    for place, row_id in enumerate(rows):
        store.connection.execute(
            "UPDATE delivery SET next_at_ms = ? WHERE id = ?",
            (from_ms + place * spacing_ms, row_id),
        )


def counted(store: Store) -> dict[str, int]:
    """How many deliveries are in each state."""
    rows = store.connection.execute("SELECT state, count(*) FROM delivery GROUP BY state")
    return {"pending": 0, "delivered": 0, "abandoned": 0, **dict(rows.fetchall())}


def _abandon(store: Store, row_id: int, why: str) -> None:
    store.connection.execute(
        "UPDATE delivery SET state = 'abandoned', last_answer = ? WHERE id = ?", (why, row_id)
    )
