"""Test clocks: customers who live in a time of their own, moved forward by hand.

What happens to such a customer happens at the clock's `frozen_time`. Advancing is asynchronous as
at Stripe: the answer says `advancing`, everything due until the new time then happens in order,
each at its own moment, and the clock is `ready`.
"""

import dataclasses

from stripe_sandbox import ids
from stripe_sandbox.call import Call
from stripe_sandbox.errors import refused
from stripe_sandbox.events import emit
from stripe_sandbox.lists import PAGE, page
from stripe_sandbox.params import INSTANT, Takes, Text
from stripe_sandbox.render import public
from stripe_sandbox.store import Document, Store

KIND = "test_helpers.test_clock"
KEPT_S = 30 * 86_400
MAX_ADVANCE_S = 2 * 366 * 86_400  # Stripe's bound without subscriptions: two years
MAX_CUSTOMERS = 3

CREATE = Takes({"frozen_time": INSTANT, "name": Text(max_chars=300)}, required=("frozen_time",))
ADVANCE = Takes({"frozen_time": INSTANT}, required=("frozen_time",))
RETRIEVE = Takes()
DELETE = Takes()
LIST = Takes(PAGE)


def create(call: Call) -> Document:
    clock: Document = {
        "id": ids.new("clock"),
        "object": KIND,
        "created": call.now,
        "deletes_after": call.now + KEPT_S,
        "frozen_time": call.params["frozen_time"],
        "livemode": False,
        "name": call.params.get("name"),
        "status": "ready",
        "status_details": {},
    }
    call.store.insert(clock, created=call.now)
    emit(call, f"{KIND}.created", public(call, clock))
    return public(call, clock)


def retrieve(call: Call) -> Document:
    return public(call, call.in_path(KIND))


def list_all(call: Call) -> Document:
    found = page(call, KIND, "/v1/test_helpers/test_clocks")
    found["data"] = [public(call, clock) for clock in found["data"]]
    return found


def advance(call: Call) -> Document:
    clock = call.in_path(KIND)
    to = call.params["frozen_time"]
    if clock["status"] != "ready":
        raise refused("The test clock is advancing already.", code="test_clock_advancing")
    if not clock["frozen_time"] < to <= clock["frozen_time"] + MAX_ADVANCE_S:
        raise refused(
            "A test clock moves forward only, and at most two years at a time.",
            param="frozen_time",
        )
    clock.update(status="advancing", status_details={"advancing": {"target_frozen_time": to}})
    call.store.put(clock)
    emit(call, f"{KIND}.advancing", public(call, clock))
    return public(call, clock)


def delete(call: Call) -> Document:
    """Takes its customers along."""
    clock = call.in_path(KIND)
    for customer in _customers(call.store, clock["id"]):
        call.store.remove(customer["id"])
    call.store.remove(clock["id"])
    emit(call, f"{KIND}.deleted", public(call, clock))
    return {"id": clock["id"], "object": KIND, "deleted": True}


def take_in(call: Call, customer: Document) -> None:
    """400 when the clock that a new customer, stored already, names has no room for it."""
    if customer["test_clock"] is None:
        return
    call.named(KIND, "test_clock")
    if len(_customers(call.store, customer["test_clock"])) > MAX_CUSTOMERS:
        raise refused(f"A test clock has at most {MAX_CUSTOMERS} customers.", param="test_clock")


def placed(call: Call) -> Call:
    """The call at the time of the test clock of whom it is about; else unchanged."""
    names = (call.path.get("id"), *(call.params.get(n) for n in ("customer", "invoice")))
    for object_id in (*names, call.params.get("test_clock")):
        clock = _clock_of(call.store, object_id) if isinstance(object_id, str) else None
        if clock is not None:
            return dataclasses.replace(call, now=clock["frozen_time"])
    return call


def next_due(store: Store, clock: Document) -> tuple[int, Document] | None:
    """The earliest thing due on an advancing clock."""
    row = store.connection.execute(
        "SELECT act_at, id, kind FROM object WHERE act_at <= ? AND NOT deleted"
        " AND json_extract(body, '$.test_clock') = ? ORDER BY act_at, seq LIMIT 1",
        (clock["status_details"]["advancing"]["target_frozen_time"], clock["id"]),
    ).fetchone()
    document = None if row is None else store.find(row[2], row[1])
    return None if document is None else (int(row[0]), document)


def advancing(store: Store) -> list[Document]:
    """Clocks with work to do."""
    return store.select(KIND, [("label = ?", "advancing")], limit=100)


def arrive(call: Call, clock: Document) -> None:
    """Everything until the new time has happened."""
    to = clock["status_details"]["advancing"]["target_frozen_time"]
    clock.update(frozen_time=to, status="ready", status_details={})
    call.store.put(clock)
    emit(call, f"{KIND}.ready", public(call, clock))


def _clock_of(store: Store, object_id: str) -> Document | None:
    row = store.connection.execute(
        "SELECT json_extract(body, '$.test_clock'), customer, kind FROM object WHERE id = ?",
        (object_id,),
    ).fetchone()
    if row is None:
        return None
    if row[2] == KIND:
        return store.find(KIND, object_id)
    if row[0] is None and row[1] is not None and row[1] != object_id:
        return _clock_of(store, row[1])
    return None if row[0] is None else store.find(KIND, row[0])


def _customers(store: Store, clock_id: str) -> list[Document]:
    where = [("json_extract(body, '$.test_clock') = ?", clock_id)]
    return store.select("customer", where, limit=100)
