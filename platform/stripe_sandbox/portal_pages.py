"""The hosted billing portal of one customer: cards on file, a new card, invoices, the way back."""

from collections.abc import Callable
from html import escape

from starlette.requests import Request
from starlette.responses import Response

from stripe_sandbox import setup_intents
from stripe_sandbox.call import Call
from stripe_sandbox.customers import set_default_card
from stripe_sandbox.page_frame import (
    TO_SAVE,
    alert,
    bank_asks,
    call_of,
    cards,
    chosen,
    day,
    form,
    framed,
    money,
    nothing_here,
    sandbox_of,
    sent_to,
    stranger,
)
from stripe_sandbox.payment_methods import detach_from, make_card
from stripe_sandbox.portal_sessions import OPEN_S
from stripe_sandbox.store import Document, Store

MAX_ROWS = 24


async def show(request: Request) -> Response:
    """The portal, or only its card form where the session's flow asks for that."""

    def read(store: Store) -> tuple[Document, str] | None:
        call = call_of(request, store)
        session = _live(call, request.path_params["token"])
        return None if session is None else (session, _portal(call, session))

    turned_away = stranger(request)
    if turned_away is not None:
        return turned_away
    found = await sandbox_of(request).ledger.run(read)
    if found is None:
        return nothing_here()
    session, body = found
    return framed("Billing", body, leads_to=(_after_card(session),))


async def add_card(request: Request) -> Response:
    """Save the chosen card and make it the one that is charged."""
    fields = await form(request)

    def act(call: Call, session: Document, customer: Document) -> bool:
        intent = setup_intents.make(call, customer, {})
        refusal = setup_intents.save_card(call, intent, make_card(call, chosen(fields, TO_SAVE)))
        session["_failed"] = None if refusal is None else refusal.message
        session["_setup_intent"] = intent["id"]
        return _take_over(call, intent, customer)

    return await _act(request, act)


async def authenticate(request: Request) -> Response:
    """Answer the issuer's question about the new card."""
    proven = (await form(request)).get("answer") == "approve"

    def act(call: Call, session: Document, customer: Document) -> bool:
        intent = call.store.find("setup_intent", session.get("_setup_intent") or "")
        if intent is None or intent["status"] != "requires_action":
            return False
        setup_intents.answer_issuer(call, intent, proven=proven)
        error = intent["last_setup_error"]
        session["_failed"] = None if error is None else error["message"]
        return _take_over(call, intent, customer)

    return await _act(request, act)


async def change_card(request: Request) -> Response:
    """Make a saved card the default, or take it away."""
    fields = await form(request)

    def act(call: Call, session: Document, customer: Document) -> bool:
        method = call.store.find("payment_method", fields.get("payment_method", ""))
        if method is not None and method["customer"] == customer["id"]:
            if fields.get("do") == "remove":
                detach_from(call, method)
            else:
                set_default_card(call, customer, method["id"])
        return False

    return await _act(request, act)


def _take_over(call: Call, intent: Document, customer: Document) -> bool:
    if intent["status"] != "succeeded":
        return False
    set_default_card(call, customer, intent["payment_method"])
    return True


async def _act(request: Request, act: Callable[[Call, Document, Document], bool]) -> Response:
    """Do it; `act` says whether the session's flow is through."""
    token = request.path_params["token"]

    def write(store: Store) -> str | None:
        with store.transaction():
            call = call_of(request, store)
            session = _live(call, token)
            customer = session and store.find("customer", session["customer"])
            if session is None or not customer or not _may(call, session, "payment_method_update"):
                return None
            done = act(call, session, customer)
            store.put(session)
            return (_after_card(session) if done else None) or f"/p/session/{token}"

    turned_away = stranger(request)
    if turned_away is not None:
        return turned_away
    onward = await sandbox_of(request).ledger.run(write)
    if onward is None:
        return nothing_here()
    sandbox_of(request).background.wake()
    return sent_to(onward)


def _live(call: Call, token: str) -> Document | None:
    where = [("json_extract(body, '$._page_token') = ?", token)]
    rows = call.store.select("billing_portal.session", where, limit=1)
    return rows[0] if rows and call.now < rows[0]["created"] + OPEN_S else None


def _may(call: Call, session: Document, feature: str) -> bool:
    found = call.store.find("billing_portal.configuration", session["configuration"])
    return found is not None and bool(found["features"][feature]["enabled"])


def _after_card(session: Document) -> str | None:
    """Where a finished card flow leads; None to stay in the portal."""
    flow = session["flow"]
    if flow is None or flow["after_completion"]["type"] != "redirect":
        return None
    return str(flow["after_completion"]["redirect"]["return_url"])


def _portal(call: Call, session: Document) -> str:
    customer = call.store.find("customer", session["customer"]) or {}
    name = customer.get("name") or customer.get("email") or session["customer"]
    body = f"<h1>Billing</h1><p class=amount>{escape(name)}</p>"
    if _may(call, session, "payment_method_update"):
        body += _cards(call, session, customer)
    if session["flow"] is None and _may(call, session, "invoice_history"):
        body += _invoices(call, session)
    if session["return_url"]:
        body += f"<p class=back><a href='{escape(session['return_url'])}'>Return</a></p>"
    return body


def _cards(call: Call, session: Document, customer: Document) -> str:
    base = f"/p/session/{session['_page_token']}"
    intent = call.store.find("setup_intent", session.get("_setup_intent") or "")
    if intent is not None and intent["status"] == "requires_action":
        return bank_asks(f"{base}/authenticate")
    where = [("customer = ?", session["customer"])]
    default = (customer.get("invoice_settings") or {}).get("default_payment_method")
    rows = ""
    for method in call.store.select("payment_method", where, limit=MAX_ROWS):
        card, is_default = method["card"], method["id"] == default
        mark = " · charged by default" if is_default else ""
        choose = "" if is_default else "<button name=do value=default>Make default</button>"
        rows += (
            f"<tr><td>{card['brand'].capitalize()} •••• {card['last4']}<small>Expires "
            f"{card['exp_month']:02d}/{card['exp_year']}{mark}"
            f"</small></td><td><form class=inline method=post action='{base}/change'>"
            f"<input type=hidden name=payment_method value='{method['id']}'>"
            f"{choose}<button class=second name=do value=remove>Remove</button></form></td></tr>"
        )
    table = (
        f"<table><tbody>{rows}</tbody></table>" if rows else "<p class=note>No card on file.</p>"
    )
    return (
        f"<h2>Cards</h2>{table}{alert(session.get('_failed'))}<h2>Use another card</h2>"
        f"<form method=post action='{base}/card'>{cards(TO_SAVE)}<button>Save card</button></form>"
    )


def _invoices(call: Call, session: Document) -> str:
    where = [("customer = ?", session["customer"]), ("label <> ?", "draft")]
    rows = "".join(
        f"<tr><td><a href='/i/acct_sandbox/{invoice['_page_token']}'>"
        f"{escape(invoice['number'])}</a>"
        f"<small>{day(invoice['status_transitions']['finalized_at'])} · {invoice['status']}</small>"
        f"</td><td>{money(invoice['total'], invoice['currency'])}</td></tr>"
        for invoice in call.store.select("invoice", where, limit=MAX_ROWS)
    )
    table = f"<table><tbody>{rows}</tbody></table>" if rows else "<p class=note>No invoice yet.</p>"
    return f"<h2>Invoices</h2>{table}"
