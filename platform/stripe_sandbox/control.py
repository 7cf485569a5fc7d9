"""The control door: `/_sandbox`, JSON in and out, with the same test key as the API.

    GET    /_sandbox                       everything at a glance
    POST   /_sandbox/clock                 {"now": unix seconds} or {"advance_s": seconds}
    POST   /_sandbox/settings              {"numbering": "account", "search_lag_s": 0, ...}
    POST   /_sandbox/faults                {"kind": ..., "path": "/v1/invoices/*", "times": 1, ...}
    DELETE /_sandbox/faults                no more faults
    POST   /_sandbox/restricted_keys       {"key": "rk_test_...", "permissions": ["rak_event_read"]}
    POST   /_sandbox/webhooks/release      {"order": "created" | "reverse" | "random", "seed": 1}
    POST   /_sandbox/events/{id}/resend    to every endpoint that wants it, now
    POST   /_sandbox/webhook_endpoints/{id}/rotate_secret   {"old_expires_in_s": 86400}
    POST   /_sandbox/charges/{id}/dispute  {"reason": "fraudulent", "amount": all, "inquiry": false,
                                            "moves_money": true}
    POST   /_sandbox/disputes/{id}         {"status": "won" | "lost" | ..., "moves_money": true}
    POST   /_sandbox/disputes/{id}/funds   {"move": "withdraw" | "reinstate", "amount": all, "fee"}
    POST   /_sandbox/objects/{id}          {"amount": 302, ...}, behind everybody's back
    POST   /_sandbox/objects/{id}/double   the same once more
    DELETE /_sandbox/objects/{id}          as if it had never been

Kinds of faults are in `faults`, settings in `settings`. Not part of Stripe: a client of Stripe
never comes here.
"""

import json
import random
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stripe_sandbox import (
    access,
    clock,
    disputes,
    events,
    faults,
    ids,
    settings,
    tampering,
    webhooks,
)
from stripe_sandbox.errors import StripeError, no_such, refused
from stripe_sandbox.page_frame import call_of, sandbox_of
from stripe_sandbox.params import MAX_AMOUNT_MINOR
from stripe_sandbox.store import Document, Store

MAX_BODY_BYTES = 65_536
MAX_OFFSET_S = 50 * 366 * 86_400
MAX_FEE_MINOR = 1_000_000
_ANY_AMOUNT = (1, MAX_AMOUNT_MINOR)
RELEASE_SPACING_MS = 30  # far enough apart that concurrent posts keep their order

_Act = Callable[[Request, Store, dict[str, Any]], Any]

_SETTINGS: dict[str, tuple[type, Any]] = {
    "numbering": (str, ("customer", "account")),
    "rate_limit": (bool, None),
    "search_lag_s": (int, (0, 7 * 86_400)),
    "webhook_delay_ms": (int, (0, 3_600_000)),
    "webhook_drop": (int, (0, 10_000)),
    "webhook_duplicates": (int, (0, 10)),
    "webhook_hold": (bool, None),
}
_FAULT: dict[str, tuple[type | tuple[type, ...], Any]] = {
    "after": (int, (0, 100_000)),
    "delay_ms": (int, (0, faults.MAX_DELAY_MS)),
    "kind": (str, faults.KINDS),
    "method": (str, ("GET", "POST", "DELETE")),
    "path": (str, None),
    "probability": ((int, float), (0, 1)),
    "seed": (int, None),
    "times": (int, (1, 100_000)),
}


def overview(request: Request, store: Store, _: dict[str, Any]) -> Any:
    sandbox = sandbox_of(request)
    counted = store.connection.execute(
        "SELECT kind, count(*) FROM object WHERE NOT deleted GROUP BY kind ORDER BY kind"
    )
    return {
        "clock": {"now": clock.now_s(), "machine": clock.true_s()},
        "deliveries": webhooks.counted(store),
        "faults": [rule.shown() for rule in sandbox.faults.rules()],
        "objects": dict(counted.fetchall()),
        "requests": dict(sorted(sandbox.limits.total.items())),
        "requests_refused": dict(sorted(sandbox.limits.refused.items())),
        "settings": settings.read_all(store),
    }


def set_clock(request: Request, store: Store, body: dict[str, Any]) -> Any:
    fields = _checked(body, {"now": (int, None), "advance_s": (int, None)})
    if len(fields) != 1:
        raise refused("Pass exactly one of now and advance_s.")
    now = fields["now"] if "now" in fields else clock.now_s() + fields["advance_s"]
    offset_s = now - clock.true_s()
    if abs(offset_s) > MAX_OFFSET_S:
        raise refused("That is too far away.", param="now")
    settings.write(store, "clock_offset_s", offset_s)
    clock.set_offset_s(offset_s)
    sandbox_of(request).background.look_again()
    return {"now": clock.now_s()}


def set_settings(_: Request, store: Store, body: dict[str, Any]) -> Any:
    for name, value in _checked(body, _SETTINGS).items():
        settings.write(store, name, value)
    return settings.read_all(store)


def add_fault(request: Request, _: Store, body: dict[str, Any]) -> Any:
    fields = _checked(body, _FAULT)
    if not {"kind", "path"} <= set(fields):
        raise refused("A fault has a kind and a path.")
    known = sandbox_of(request).faults
    if len(known.rules()) >= faults.MAX_RULES:
        raise refused(f"There are {faults.MAX_RULES} faults already.")
    return known.add(**fields).shown()


def clear_faults(request: Request, _: Store, __: dict[str, Any]) -> Any:
    sandbox_of(request).faults.clear()
    return {"faults": []}


def restrict_key(request: Request, _: Store, body: dict[str, Any]) -> Any:
    """From now on that key may do this and nothing else."""
    fields = _checked(body, {"key": (str, None), "permissions": (list, None)})
    rights = fields.get("permissions", [])
    if not all(isinstance(each, str) for each in rights):
        raise refused("permissions is a list of names.", param="permissions")
    return {"permissions": sandbox_of(request).permissions.restrict(fields.get("key", ""), rights)}


def release(_: Request, store: Store, body: dict[str, Any]) -> Any:
    """Let held webhooks go, in the order asked."""
    orders = ("created", "reverse", "random")
    fields = _checked(body, {"order": (str, orders), "seed": (int, None)})
    settings.write(store, "webhook_hold", False)
    rows = [
        row[0]
        for row in store.connection.execute(
            "SELECT id FROM delivery WHERE state = 'pending' ORDER BY id"
        )
    ]
    if fields.get("order") == "reverse":
        rows.reverse()
    elif fields.get("order") == "random":
        random.Random(fields.get("seed", 0)).shuffle(rows)  # noqa: S311 (an order, no secret)
    webhooks.schedule(store, rows, clock.now_ms(), RELEASE_SPACING_MS)
    return {"released": len(rows)}


def resend(request: Request, store: Store, _: dict[str, Any]) -> Any:
    event = _found(store, "event", request)
    return {"deliveries": events.address(store, event, again=True)}


def rotate_secret(request: Request, store: Store, body: dict[str, Any]) -> Any:
    """A new secret; until the old one expires, both sign."""
    fields = _checked(body, {"old_expires_in_s": (int, (0, 7 * 86_400))})
    endpoint = _found(store, "webhook_endpoint", request)
    until = clock.now_s() + fields.get("old_expires_in_s", 86_400)
    endpoint["_old_secrets"] = [[endpoint["_secret"], until]]
    endpoint["_secret"] = ids.secret("whsec")
    store.put(endpoint)
    return {"secret": endpoint["_secret"], "old_expires_at": until}


def open_dispute(request: Request, store: Store, body: dict[str, Any]) -> Any:
    known: dict[str, tuple[Any, Any]] = {
        "amount": (int, _ANY_AMOUNT), "inquiry": (bool, None), "moves_money": (bool, None),
        "reason": (str, None),
    }  # fmt: skip
    fields = _checked(body, known)
    charge = _found(store, "charge", request)
    if not charge["paid"]:
        raise refused("Only a paid charge can be disputed.")
    return disputes.open_over(
        call_of(request, store),
        charge,
        fields.get("reason", "fraudulent"),
        amount_minor=fields.get("amount"),
        is_inquiry=fields.get("inquiry", False),
        takes_money=fields.get("moves_money", True),
    )


def decide_dispute(request: Request, store: Store, body: dict[str, Any]) -> Any:
    known = {"status": (str, tuple(disputes.MOVES)), "moves_money": (bool, None)}
    fields = _checked(body, known)
    if "status" not in fields:
        raise refused("Say the status: won or lost, as a rule.", param="status")
    dispute = _found(store, "dispute", request)
    moves_money = fields.get("moves_money", True)
    disputes.decide(call_of(request, store), dispute, fields["status"], moves_money=moves_money)
    return dispute


def move_funds(request: Request, store: Store, body: dict[str, Any]) -> Any:
    """A dispute's money by itself, whatever its status."""
    known: dict[str, tuple[Any, Any]] = {
        "amount": (int, _ANY_AMOUNT), "fee": (int, (-MAX_FEE_MINOR, MAX_FEE_MINOR)),
        "move": (str, ("withdraw", "reinstate")),
    }  # fmt: skip
    fields = _checked(body, known)
    dispute, call = _found(store, "dispute", request), call_of(request, store)
    if fields.get("move") == "withdraw":
        disputes.withdraw(call, dispute, fee_minor=fields.get("fee"))
    elif fields.get("move") == "reinstate":
        fee_minor = fields.get("fee", 0)
        disputes.reinstate(call, dispute, amount_minor=fields.get("amount"), fee_minor=fee_minor)
    else:
        raise refused("Say the move: withdraw or reinstate.", param="move")
    return dispute


def alter_object(request: Request, store: Store, body: dict[str, Any]) -> Any:
    return tampering.alter(store, request.path_params["id"], body)


def double_object(request: Request, store: Store, _: dict[str, Any]) -> Any:
    return tampering.double(store, request.path_params["id"])


def remove_object(request: Request, store: Store, _: dict[str, Any]) -> Any:
    return tampering.remove(store, request.path_params["id"])


def _handled(act: _Act) -> Callable[[Request], Any]:
    async def handle(request: Request) -> Response:
        sandbox = sandbox_of(request)
        try:
            if not access.host_is_local(request.headers):
                raise StripeError(403, "The sandbox answers to names of this machine only.")
            access.check(request.headers, sandbox.settings.key)
            body = await _body(request)

            def run(store: Store) -> Any:
                with store.transaction():
                    return act(request, store, body)

            answer = await sandbox.ledger.run(run)
        except StripeError as error:
            return JSONResponse(error.body(), error.status)
        sandbox.background.wake()
        return JSONResponse(answer)

    return handle


async def _body(request: Request) -> dict[str, Any]:
    size, chunks = 0, []
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise StripeError(413, "The body is too large.")
        chunks.append(chunk)
    try:
        body = json.loads(b"".join(chunks) or b"{}")
    except (ValueError, RecursionError):
        raise StripeError(400, "The body is not JSON.") from None
    if not isinstance(body, dict):
        raise StripeError(400, "The body is not a JSON object.")
    return body


def _checked(body: dict[str, Any], known: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    """The body, with every name known and every value of its kind and in its bounds."""
    for name, value in body.items():
        if name not in known:
            raise refused(f"Unknown: {name}. Known are {', '.join(sorted(known))}.", param=name)
        kind, bounds = known[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise refused(f"{name} has the wrong type.", param=name)
        if bounds is None:
            continue
        if isinstance(value, str):
            if value not in bounds:
                raise refused(f"{name} must be one of {', '.join(bounds)}.", param=name)
        elif not bounds[0] <= value <= bounds[1]:
            raise refused(f"{name} must be {bounds[0]} to {bounds[1]}.", param=name)
    return body


def _found(store: Store, kind: str, request: Request) -> Document:
    found = store.find(kind, request.path_params["id"])
    if found is None:
        raise no_such(kind, request.path_params["id"], "id", in_path=True)
    return found


ROUTES = tuple(
    Route(f"/_sandbox{path}", _handled(act), methods=[method])
    for method, path, act in (
        ("GET", "", overview),
        ("POST", "/clock", set_clock),
        ("POST", "/settings", set_settings),
        ("POST", "/faults", add_fault),
        ("DELETE", "/faults", clear_faults),
        ("POST", "/restricted_keys", restrict_key),
        ("POST", "/webhooks/release", release),
        ("POST", "/events/{id}/resend", resend),
        ("POST", "/webhook_endpoints/{id}/rotate_secret", rotate_secret),
        ("POST", "/charges/{id}/dispute", open_dispute),
        ("POST", "/disputes/{id}", decide_dispute),
        ("POST", "/disputes/{id}/funds", move_funds),
        ("POST", "/objects/{id}", alter_object),
        ("POST", "/objects/{id}/double", double_object),
        ("DELETE", "/objects/{id}", remove_object),
    )
)
