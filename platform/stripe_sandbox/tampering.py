"""Objects changed behind everybody's back, for tests of those who compare their books with Stripe.

What an API call could not do, and nobody is told of: no event, no check, nothing else is adjusted.
Members that begin with an underscore are the sandbox's own and stay as they are.
"""

from typing import Any

from stripe_sandbox import ids
from stripe_sandbox.errors import no_such, refused
from stripe_sandbox.store import Document, Store


def alter(store: Store, object_id: str, members: dict[str, Any]) -> Document:
    """Give members other values; those that they had. An id and its kind are not to be changed."""
    found = _any(store, object_id)
    for name in members:
        if name not in found or name in ("id", "object") or name.startswith("_"):
            raise refused(f"{found['object']} has no member {name} to alter.", param=name)
    before = {name: found[name] for name in members}
    found.update(members)
    store.put(found)
    return before


def double(store: Store, object_id: str) -> Document:
    """The same once more, under an id of its own."""
    found = _any(store, object_id)
    copy = {**found, "id": ids.new(object_id.partition("_")[0])}
    store.insert(copy, created=int(found["created"]))
    return copy


def remove(store: Store, object_id: str) -> Document:
    """As if it had never been; lists and reads do not know it."""
    found = _any(store, object_id)
    store.remove(object_id)
    return found


def _any(store: Store, object_id: str) -> Document:
    row = store.connection.execute(
        "SELECT kind FROM object WHERE id = ? AND NOT deleted", (object_id,)
    ).fetchone()
    found = store.find(row[0], object_id) if row is not None else None
    if found is None:
        raise no_such("object", object_id, "id", in_path=True)
    return found
