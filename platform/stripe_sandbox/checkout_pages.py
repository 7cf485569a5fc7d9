"""The hosted Checkout, the page where a bank asks its holder, and the receipt of a charge.

A form that ends a Checkout leads to the address the session names, with `{CHECKOUT_SESSION_ID}`
filled in; an answered question leads to the intent's `return_url` with Stripe's parameters.
"""

from collections.abc import Callable
from html import escape
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from stripe_sandbox import own_payment_intents, setup_intents
from stripe_sandbox.call import Call
from stripe_sandbox.checkout_sessions import complete_if_done, submit
from stripe_sandbox.page_frame import (
    TO_PAY,
    TO_SAVE,
    alert,
    bank_asks,
    call_of,
    cards,
    chosen,
    day,
    facts,
    form,
    framed,
    money,
    nothing_here,
    sandbox_of,
    sent_to,
    stranger,
)
from stripe_sandbox.payment_methods import make_card
from stripe_sandbox.store import Document, Store

_ANSWERERS = {
    "payment_intent": own_payment_intents.answer_issuer,
    "setup_intent": setup_intents.answer_issuer,
}


async def show(request: Request) -> Response:
    """An open session, or why it is not open any more."""

    def read(store: Store) -> tuple[Document, str] | None:
        call = call_of(request, store)
        session = store.find("checkout.session", request.path_params["id"])
        return None if session is None else (session, _checkout(call, session))

    turned_away = stranger(request)
    if turned_away is not None:
        return turned_away
    found = await sandbox_of(request).ledger.run(read)
    if found is None:
        return nothing_here()
    session, body = found
    return framed("Checkout", body, leads_to=(session["success_url"],))


async def use_card(request: Request) -> Response:
    """Pay or save with the chosen card."""
    fields = await form(request)

    def act(call: Call, session: Document) -> None:
        offered = TO_PAY if session["mode"] == "payment" else TO_SAVE
        submit(call, session, make_card(call, chosen(fields, offered)))

    return await _act(request, act)


async def authenticate(request: Request) -> Response:
    """Answer the issuer's question inside a Checkout."""
    proven = (await form(request)).get("answer") == "approve"

    def act(call: Call, session: Document) -> None:
        intent = _intent(call, session)
        if intent is not None and intent["status"] == "requires_action":
            _ANSWERERS[intent["object"]](call, intent, proven=proven)
            error = intent.get("last_payment_error") or intent.get("last_setup_error")
            session["_failed"] = None if error is None else error["message"]
            call.store.put(session)
            complete_if_done(call, session)

    return await _act(request, act)


async def ask(request: Request) -> Response:
    """The question of an intent that was confirmed through the API."""

    def read(store: Store) -> Document | None:
        return _intent_by_token(store, request.path_params["token"])

    turned_away = stranger(request)
    if turned_away is not None:
        return turned_away
    intent = await sandbox_of(request).ledger.run(read)
    if intent is None:
        return nothing_here()
    if intent["status"] != "requires_action":
        return framed("Answered", f"<h1>Answered</h1><p class=note>It is {intent['status']}.</p>")
    amount = "amount" in intent and money(intent["amount"], intent["currency"])
    head = f"<h1>Payment</h1><p class=amount>{amount}</p>" if amount else "<h1>Save a card</h1>"
    path = f"/authenticate/acct_sandbox/{intent['_page_token']}"
    return framed("Authentication", head + bank_asks(path), leads_to=(intent["_return_url"],))


async def answer(request: Request) -> Response:
    """Take the answer and lead back to where the intent says."""
    proven = (await form(request)).get("answer") == "approve"

    def write(store: Store) -> Document | None:
        with store.transaction():
            intent = _intent_by_token(store, request.path_params["token"])
            if intent is not None and intent["status"] == "requires_action":
                _ANSWERERS[intent["object"]](call_of(request, store), intent, proven=proven)
            return intent

    turned_away = stranger(request)
    if turned_away is not None:
        return turned_away
    intent = await sandbox_of(request).ledger.run(write)
    if intent is None:
        return nothing_here()
    sandbox_of(request).background.wake()
    if not intent["_return_url"]:
        return sent_to(f"/authenticate/acct_sandbox/{intent['_page_token']}")
    kind = intent["object"]
    result = {
        kind: intent["id"],
        f"{kind}_client_secret": intent["client_secret"],
        "redirect_status": "succeeded" if intent["status"] == "succeeded" else "failed",
    }
    joint = "&" if "?" in intent["_return_url"] else "?"
    return sent_to(f"{intent['_return_url']}{joint}{urlencode(result)}")


async def receipt(request: Request) -> Response:
    """What was paid with which card, and what of it went back."""

    def read(store: Store) -> Document | None:
        token = request.path_params["token"]
        where = [("json_extract(body, '$._receipt_token') = ?", token)]
        return next(iter(store.select("charge", where, limit=1)), None)

    turned_away = stranger(request)
    if turned_away is not None:
        return turned_away
    charge = await sandbox_of(request).ledger.run(read)
    if charge is None:
        return nothing_here()
    card, currency = charge["payment_method_details"]["card"], charge["currency"]
    back = charge["amount_refunded"]
    rows = [
        ("Date", day(charge["created"])),
        ("Card", f"{card['brand'].capitalize()} •••• {card['last4']}"),
        ("For", charge["description"]),
        ("Refunded", money(back, currency) if back else None),
    ]
    said = "Paid" if charge["paid"] else "Not paid"
    return framed(
        "Receipt",
        f"<h1>Receipt</h1><p class=amount>{money(charge['amount'], currency)}</p>"
        f"<p class=quiet>{said}</p>{facts(rows)}",
    )


async def _act(request: Request, act: Callable[[Call, Document], None]) -> Response:
    def write(store: Store) -> Document | None:
        with store.transaction():
            session = store.find("checkout.session", request.path_params["id"])
            if session is not None and session["status"] == "open":
                act(call_of(request, store), session)
            return session

    turned_away = stranger(request)
    if turned_away is not None:
        return turned_away
    session = await sandbox_of(request).ledger.run(write)
    if session is None:
        return nothing_here()
    sandbox_of(request).background.wake()
    if session["status"] == "complete":
        return sent_to(session["success_url"].replace("{CHECKOUT_SESSION_ID}", session["id"]))
    return sent_to(f"/c/pay/{session['id']}")


def _checkout(call: Call, session: Document) -> str:
    if session["status"] != "open":
        said = {
            "complete": "You're all done here. This session is complete.",
            "expired": "This session has expired.",
        }[session["status"]]
        return f"<h1>Checkout</h1><p class=note>{said}</p>"
    paying = session["mode"] == "payment"
    customer = call.store.find("customer", session["customer"] or "") or {}
    head = (
        f"<h1>Pay</h1><p class=amount>{money(session['amount_total'], session['currency'])}</p>"
        if paying
        else "<h1>Checkout</h1><p class=amount>Save a card</p>"
    )
    who = [
        ("Name", customer.get("name")),
        ("Email", customer.get("email") or session["customer_email"]),
    ]
    return f"{head}{facts(who)}{_lines(session)}{_what_next(call, session)}{_way_back(session)}"


def _lines(session: Document) -> str:
    rows = "".join(
        f"<tr><td>{escape(line['description'] or 'Item')}<small>Quantity {line['quantity']}"
        f"</small></td><td>{money(line['amount_total'], line['currency'])}</td></tr>"
        for line in session["_lines"]
    )
    head = "<table><thead><tr><th>Item</th><th>Amount</th></tr></thead>"
    return f"{head}<tbody>{rows}</tbody></table>" if rows else ""


def _what_next(call: Call, session: Document) -> str:
    base = f"/c/pay/{session['id']}"
    intent = _intent(call, session)
    if intent is not None and intent["status"] == "requires_action":
        return bank_asks(f"{base}/authenticate")
    paying = session["mode"] == "payment"
    title = "Pay with a test card" if paying else "Choose a test card"
    offered = TO_PAY if paying else TO_SAVE
    button = "Save card"
    if paying:
        button = f"Pay {money(session['amount_total'], session['currency'])}"
    return (
        f"{alert(session['_failed'])}<h2>{title}</h2><form method=post action='{base}/card'>"
        f"{cards(offered)}<button>{button}</button></form>"
    )


def _way_back(session: Document) -> str:
    if session["cancel_url"] is None:
        return ""
    return f"<p class=back><a href='{escape(session['cancel_url'])}'>Cancel and go back</a></p>"


def _intent(call: Call, session: Document) -> Document | None:
    kind = "payment_intent" if session["mode"] == "payment" else "setup_intent"
    return call.store.find(kind, session[kind] or "")


def _intent_by_token(store: Store, token: str) -> Document | None:
    where = [("json_extract(body, '$._page_token') = ?", token)]
    for kind in _ANSWERERS:
        for intent in store.select(kind, where, limit=1):
            return intent
    return None
