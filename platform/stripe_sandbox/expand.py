"""`expand[]`: ids replaced by their objects, and members that Stripe shows only on demand.

An invoice's `payments` and `confirmation_secret` are absent unless asked for; a client that reads
them without expanding should fail here as it would at Stripe. Paths are followed at most four
levels deep; what cannot be expanded is refused.
"""

from collections.abc import Callable, Sequence

from stripe_sandbox.call import Call
from stripe_sandbox.errors import refused
from stripe_sandbox.lists import listed
from stripe_sandbox.render import public
from stripe_sandbox.store import Document

MAX_LEVELS = 4

# kind -> member (dotted when nested) -> kind of the object behind the id
_LINKS: dict[str, dict[str, str]] = {
    "customer": {"invoice_settings.default_payment_method": "payment_method"},
    "invoice": {"customer": "customer", "default_payment_method": "payment_method"},
    "invoiceitem": {"customer": "customer", "invoice": "invoice"},
    "invoice_payment": {"invoice": "invoice", "payment.payment_intent": "payment_intent"},
    "payment_intent": {
        "customer": "customer",
        "latest_charge": "charge",
        "payment_method": "payment_method",
    },
    "payment_method": {"customer": "customer"},
    "setup_intent": {"customer": "customer", "payment_method": "payment_method"},
    "checkout.session": {
        "customer": "customer",
        "payment_intent": "payment_intent",
        "setup_intent": "setup_intent",
    },
    "billing_portal.session": {"configuration": "billing_portal.configuration"},
    "price": {"product": "product"},
    "product": {"default_price": "price"},
    "charge": {
        "customer": "customer",
        "payment_intent": "payment_intent",
    },
    "refund": {"charge": "charge", "customer": "customer", "payment_intent": "payment_intent"},
    "dispute": {"charge": "charge", "payment_intent": "payment_intent"},
    "balance_transaction": {"source": "dispute"},
    "credit_note": {
        "customer": "customer",
        "customer_balance_transaction": "customer_balance_transaction",
        "invoice": "invoice",
    },
    "customer_balance_transaction": {
        "credit_note": "credit_note",
        "customer": "customer",
        "invoice": "invoice",
    },
}


def _payments(call: Call, invoice: Document) -> Document:
    where = [("invoice = ?", invoice["id"])]
    rows = call.store.select("invoice_payment", where, limit=10)
    url = f"/v1/invoice_payments?invoice={invoice['id']}"
    return listed([public(call, row) for row in rows], url)


def _confirmation_secret(call: Call, invoice: Document) -> Document | None:
    payments = call.store.select("invoice_payment", [("invoice = ?", invoice["id"])], limit=1)
    if not payments:
        return None
    intent = call.store.find("payment_intent", payments[0]["payment"]["payment_intent"])
    if intent is None:
        return None
    return {"client_secret": intent["client_secret"], "type": "payment_intent"}


def _refunds(call: Call, charge: Document) -> Document:
    where = [("json_extract(body, '$.charge') = ?", charge["id"])]
    rows = call.store.select("refund", where, limit=10)
    return listed([public(call, row) for row in rows], f"/v1/charges/{charge['id']}/refunds")


def _line_items(call: Call, session: Document) -> Document:
    stored = call.store.find("checkout.session", session["id"]) or {"_lines": []}
    url = f"/v1/checkout/sessions/{session['id']}/line_items"
    return listed(stored["_lines"][:10], url, has_more=len(stored["_lines"]) > 10)


_ON_DEMAND: dict[str, dict[str, Callable[[Call, Document], Document | None]]] = {
    "invoice": {"payments": _payments, "confirmation_secret": _confirmation_secret},
    "charge": {"refunds": _refunds},
    "checkout.session": {"line_items": _line_items},
}


def expanded(call: Call, answer: Document, paths: Sequence[str]) -> Document:
    """The answer with every path followed; 400 for a path that leads nowhere."""
    for path in paths:
        parts = path.split(".")
        if len([part for part in parts if part != "data"]) > MAX_LEVELS:
            raise refused(
                f"You cannot expand more than {MAX_LEVELS} levels of a property. Property: {path}.",
                param="expand",
            )
        _follow(call, answer, parts, path)
    return answer


def _follow(call: Call, node: Document, parts: Sequence[str], path: str) -> None:
    if not parts:
        return
    kind = node.get("object", "")
    if kind == "list":
        if parts[0] != "data":
            raise _nowhere(path)
        for row in node["data"]:
            _follow(call, row, parts[1:], path)
        return
    on_demand = _ON_DEMAND.get(kind, {}).get(parts[0])
    if on_demand is not None:
        if parts[0] not in node:
            node[parts[0]] = on_demand(call, node)
        if node[parts[0]] is not None:
            _follow(call, node[parts[0]], parts[1:], path)
        return
    for depth in (1, 2):
        target = _LINKS.get(kind, {}).get(".".join(parts[:depth]))
        if target is not None:
            _replace(call, node, parts[:depth], target)
            child = _descend(node, parts[:depth])
            if isinstance(child, dict):
                _follow(call, child, parts[depth:], path)
            return
    embedded = node.get(parts[0])
    if isinstance(embedded, dict) and embedded.get("object") == "list":
        _follow(call, embedded, parts[1:], path)  # already there, as `lines` is
        return
    raise _nowhere(path)


def _descend(node: Document, parts: Sequence[str]) -> Document | str | None:
    value: Document | str | None = node
    for part in parts:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _replace(call: Call, node: Document, parts: Sequence[str], kind: str) -> None:
    value = _descend(node, parts)
    if not isinstance(value, str):
        return
    found = call.store.find(kind, value, deleted=True)
    owner = _descend(node, parts[:-1])
    if found is not None and isinstance(owner, dict):
        owner[parts[-1]] = public(call, found)


def _nowhere(path: str) -> Exception:
    return refused(f"This property cannot be expanded ({path}).", param="expand")
