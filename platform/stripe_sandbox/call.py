"""What an act is given: the store inside a transaction, the instant, who asked, and with what.

An act is a plain function from a `Call` to a document (answered 200) or an `Answer`. It raises
`StripeError` to have everything undone, and returns an `Answer` of another status when its
effects must stay, as a declined payment's do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stripe_sandbox.errors import no_such
from stripe_sandbox.store import Document, Store

# What Stripe calls the id in the path, where it is not plainly `id`.
_PATH_PARAM = {"invoice": "invoice", "payment_method": "payment_method", "payment_intent": "intent"}


@dataclass(frozen=True, slots=True)
class Call:
    """One request, or one background step (then `request_id` is None)."""

    store: Store
    now: int
    base_url: str
    request_id: str | None = None
    idempotency_key: str | None = None
    path: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)

    def in_path(self, kind: str) -> Document:
        """The object the path names; 404 if there is none."""
        object_id = self.path["id"]
        found = self.store.find(kind, object_id)
        if found is None:
            raise no_such(kind, object_id, _PATH_PARAM.get(kind, "id"), in_path=True)
        return found

    def named(self, kind: str, param: str) -> Document | None:
        """The object a parameter names, None if it was not sent; 400 if there is none."""
        object_id = self.params.get(param)
        if object_id is None:
            return None
        found = self.store.find(kind, object_id)
        if found is None:
            raise no_such(kind, object_id, param, in_path=False)
        return found


@dataclass(frozen=True, slots=True)
class Answer:
    """A body with a status of its own; the act's effects are kept."""

    status: int
    body: Document
