"""Events: what happened to an object, with the object as it stood then, and who is told of it.

Written in the transaction of the change itself: no change without its event, no event without its
change. Telling the endpoints is `webhooks`' work; here they only get a pending delivery each.
"""

from typing import Any

from stripe_sandbox import API_VERSION, clock, ids, settings
from stripe_sandbox.call import Call
from stripe_sandbox.lists import PAGE, created_in, page
from stripe_sandbox.params import Rows, Span, Takes, Text
from stripe_sandbox.store import Document, Store

KEPT_S = 30 * 24 * 3600  # Stripe keeps events for 30 days

LIST = Takes(
    {
        **PAGE,
        "created": Span(),
        "type": Text(max_chars=100, keeps=True),
        "types": Rows(Text(max_chars=100, keeps=True), max_rows=20),
    }
)
RETRIEVE = Takes()


def emit(call: Call, event_type: str, snapshot: Document, previous: Document | None = None) -> None:
    """Record `event_type` about the rendered `snapshot`; `previous` holds changed values."""
    data: dict[str, Any] = {"object": snapshot}
    if previous is not None:
        data["previous_attributes"] = previous
    event: Document = {
        "id": ids.new("evt"),
        "object": "event",
        "api_version": API_VERSION,
        "created": call.now,
        "data": data,
        "livemode": False,
        "request": {"id": call.request_id, "idempotency_key": call.idempotency_key},
        "type": event_type,
    }
    call.store.insert(event, created=call.now)
    address(call.store, event)


def emit_change(call: Call, event_type: str, before: Document, after: Document) -> None:
    """An `.updated` event naming what differs; nothing when nothing does."""
    previous = {key: before.get(key) for key in after if before.get(key) != after[key]}
    if previous:
        emit(call, event_type, after, previous)


def address(store: Store, event: Document, *, again: bool = False) -> int:
    """A pending delivery for every endpoint that wants the event; how many.

    What the settings ask for happens here: delays, duplicates, and losses, but not when an event
    is sent `again` by hand.
    """
    due_ms = clock.now_ms() + (0 if again else settings.read(store, "webhook_delay_ms"))
    copies = 1 if again else 1 + settings.read(store, "webhook_duplicates")
    count = 0
    for endpoint in store.select("webhook_endpoint", (("label = ?", "enabled"),), limit=100):
        wanted = endpoint["enabled_events"]
        if "*" not in wanted and event["type"] not in wanted:
            continue
        lost = not again and _lose_one(store)
        for _ in range(copies):
            store.connection.execute(
                "INSERT INTO delivery"
                " (event, endpoint, state, first_at_ms, next_at_ms, last_answer)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    event["id"],
                    endpoint["id"],
                    "abandoned" if lost else "pending",
                    due_ms,
                    due_ms,
                    "lost on demand" if lost else None,
                ),
            )
            count += 1
    return count


def _lose_one(store: Store) -> bool:
    left = settings.read(store, "webhook_drop")
    if left > 0:
        settings.write(store, "webhook_drop", left - 1)
    return bool(left > 0)


def with_pending(store: Store, event: Document) -> Document:
    """The event with the number of endpoints that have not confirmed it yet."""
    pending = store.connection.execute(
        "SELECT count(*) FROM delivery WHERE event = ? AND state = 'pending'", (event["id"],)
    ).fetchone()[0]
    return {**event, "pending_webhooks": pending}


def retrieve(call: Call) -> Document:
    return with_pending(call.store, call.in_path("event"))


def list_all(call: Call) -> Document:
    where = created_in(call.params.get("created"))
    if "type" in call.params:
        # Stripe's pattern has only `*`; the brackets and `?` of GLOB must not leak in.
        where.append(("label GLOB ?", _glob(call.params["type"])))
    if call.params.get("types"):
        joined = ",".join(call.params["types"])
        where.append(("instr(',' || ? || ',', ',' || label || ',') > 0", joined))
    found = page(call, "event", "/v1/events", where)
    found["data"] = [with_pending(call.store, event) for event in found["data"]]
    return found


def _glob(pattern: str) -> str:
    return pattern.replace("[", "[[]").replace("?", "[?]")


def forget(store: Store, now: int) -> None:
    """Drop events past their keeping time and what is left of their deliveries."""
    store.connection.execute(
        "DELETE FROM object WHERE kind = 'event' AND created < ?", (now - KEPT_S,)
    )
    # Of what search may see, the newest state older than a week and all that came after.
    store.connection.execute(
        "DELETE FROM searchable WHERE seq < (SELECT max(seq) FROM searchable AS s"
        " WHERE s.id = searchable.id AND s.seen_ms < ?)",
        ((now - 7 * 24 * 3600) * 1000,),
    )
    store.connection.execute(
        "DELETE FROM delivery WHERE first_at_ms < ? AND state <> 'pending'",
        ((now - KEPT_S) * 1000,),
    )
