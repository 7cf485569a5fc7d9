"""The pages people see: a finalized invoice to look at and pay with a test card, and a front page.

Every page says SANDBOX. Cards are chosen from the published test numbers, never typed: this page
must not invite a real one. Knowing an invoice's address is the permission to see it, as at Stripe;
no script runs, and what is shown is escaped.
"""

import datetime
from collections.abc import Callable
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from stripe_sandbox import access, clock, payment_intents, payments
from stripe_sandbox.call import Call
from stripe_sandbox.cards import BY_NUMBER, TestCard
from stripe_sandbox.errors import StripeError
from stripe_sandbox.invoice_lines import MAX_LINES
from stripe_sandbox.invoice_moves import MOVES
from stripe_sandbox.payment_methods import make_card
from stripe_sandbox.render import lines_of
from stripe_sandbox.store import Document, Store

if TYPE_CHECKING:
    from stripe_sandbox.app import Sandbox

_Act: TypeAlias = Callable[[Call, Document], None]

MAX_FORM_BYTES = 1_024
RECENT_ROWS = 20

_STYLE = resources.files("stripe_sandbox").joinpath("page.css").read_text()
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}

# Offered on the page, with what each will do.
OFFERED = (
    ("4242424242424242", "pays"),
    ("4000002760003184", "asks to authenticate"),
    ("4000000000000341", "is declined"),
    ("4000000000009995", "has insufficient funds"),
)

_NO_MINOR = frozenset(
    (
        *("bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga"),
        *("pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof", "xpf"),
    )
)
_THREE_DIGITS = frozenset(["bhd", "jod", "kwd", "omr", "tnd"])
_SIGNS = {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥"}


def money(amount_minor: int, currency: str) -> str:
    """`$1,234.50`; integers only, so what is shown is what is owed."""
    digits = 0 if currency in _NO_MINOR else 3 if currency in _THREE_DIGITS else 2
    whole, rest = divmod(abs(amount_minor), 10**digits)
    number = f"{whole:,}" + (f".{rest:0{digits}d}" if digits else "")
    minus = "−" if amount_minor < 0 else ""  # noqa: RUF001 (a true minus sign is meant)
    sign = _SIGNS.get(currency)
    return f"{minus}{sign}{number}" if sign else f"{minus}{number} {currency.upper()}"


def day(instant: int) -> str:
    """`24 November 2026`, in UTC."""
    at = datetime.datetime.fromtimestamp(instant, datetime.UTC)
    return f"{at.day} {at:%B %Y}"


async def home(request: Request) -> Response:
    """What this process is, and the latest invoices."""
    if not access.host_is_local(request.headers):
        return _page("Not found", _missing(), status=403)

    def read(store: Store) -> list[Document]:
        return store.select("invoice", limit=RECENT_ROWS)

    return _page("Stripe sandbox", _front(await _sandbox(request).ledger.run(read)))


async def show(request: Request) -> Response:
    """One finalized invoice."""
    token = request.path_params["token"]

    def read(store: Store) -> str | None:
        invoice = _by_token(store, token)
        return None if invoice is None else _invoice(_call(request, store), invoice)

    if not access.host_is_local(request.headers):
        return _page("Not found", _missing(), status=403)
    body = await _sandbox(request).ledger.run(read)
    if body is None:
        return _page("Not found", _missing(), status=404)
    return _page("Invoice", body)


async def pay(request: Request) -> Response:
    """Pay with the chosen test card; declines are shown on the page they lead back to."""
    card = BY_NUMBER.get(await _field(request, "card"))
    if card is None or card.number not in dict(OFFERED):
        return _page("Not found", _missing(), status=400)

    def act(call: Call, invoice: Document) -> None:
        _pay_with(call, invoice, card)

    return await _act(request, "pay", act)


async def authenticate(request: Request) -> Response:
    """Answer the issuer's question."""
    proven = await _field(request, "answer") == "approve"

    def act(call: Call, invoice: Document) -> None:
        intent = payment_intents.of_invoice(call, invoice)
        if intent is not None and intent["status"] == "requires_action":
            payments.authenticate(call, invoice, proven=proven)

    return await _act(request, "pay", act)


async def turned_away(request: Request, refused: Exception) -> Response:
    """What a page's act refuses, as a page."""
    status = refused.status if isinstance(refused, StripeError) else 400
    return _page("Refused", f"<h1>Refused</h1><p class=quiet>{escape(str(refused))}</p>", status)


def _pay_with(call: Call, invoice: Document, card: TestCard) -> None:
    method = make_card(call, card)
    payments.charge(call, invoice, method)


async def _act(request: Request, move: str, act: _Act) -> Response:
    token = request.path_params["token"]

    def write(store: Store) -> bool:
        with store.transaction():
            invoice = _by_token(store, token)
            if invoice is None:
                return False
            if invoice["status"] in MOVES[move]:  # a second click finds it paid and does nothing
                act(_call(request, store), invoice)
            return True

    if not access.host_is_local(request.headers):
        return _page("Not found", _missing(), status=403)
    found = await _sandbox(request).ledger.run(write)
    if not found:
        return _page("Not found", _missing(), status=404)
    _sandbox(request).background.wake()
    return RedirectResponse(f"/i/acct_sandbox/{token}", status_code=303, headers=_HEADERS)


async def _field(request: Request, name: str) -> str:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise StripeError(413, "The form is too large.")
    return parse_qs(body.decode("utf-8", "replace")).get(name, [""])[0]


def _sandbox(request: Request) -> "Sandbox":
    sandbox: Sandbox = request.app.state.sandbox
    return sandbox


def _call(request: Request, store: Store) -> Call:
    return Call(store=store, now=clock.now_s(), base_url=_sandbox(request).settings.base_url)


def _by_token(store: Store, token: str) -> Document | None:
    rows = store.select("invoice", [("json_extract(body, '$._page_token') = ?", token)], limit=1)
    return rows[0] if rows else None


def _page(title: str, body: str, status: int = 200) -> Response:
    mark = " SANDBOX" * 120
    return HTMLResponse(
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)} · Stripe sandbox</title><style>{_STYLE}</style>"
        "<div class=banner role=note>SANDBOX — not Stripe. No money moves here.</div>"
        f"<main><div class=paper><div class=watermark aria-hidden=true>{mark}</div>{body}</div>"
        "</main></html>",
        status_code=status,
        headers=_HEADERS,
    )


def _missing() -> str:
    return "<h1>Nothing here</h1><p class=quiet>This page does not exist in the sandbox.</p>"


def _front(invoices: list[Document]) -> str:
    rows = "".join(
        f"<tr><td>{_linked(invoice)}<small>{escape(invoice['customer_name'] or '')}</small></td>"
        f"<td>{invoice['status']}</td>"
        f"<td>{money(invoice['total'], invoice['currency'])}</td></tr>"
        for invoice in invoices
    )
    table = (
        "<table><thead><tr><th>Latest invoices</th><th>Status</th><th>Total</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
        if rows
        else "<p class=note>No invoice yet.</p>"
    )
    return (
        "<h1>Stripe sandbox</h1><p class=quiet>A local stand-in for Stripe: test cards, real "
        f"state, signed webhooks.</p>{table}"
    )


def _linked(invoice: Document) -> str:
    token = invoice["_page_token"]
    if token is None:
        return escape(invoice["id"])
    return f"<a href='/i/acct_sandbox/{token}'>{escape(invoice['number'])}</a>"


def _invoice(call: Call, invoice: Document) -> str:
    currency, status = invoice["currency"], invoice["status"]
    lines = lines_of(call, invoice["id"], MAX_LINES)["data"]
    rows = "".join(
        f"<tr><td>{escape(line['description'] or 'Item')}<small>{_period(line)}</small></td>"
        f"<td>{money(line['amount'], currency)}</td></tr>"
        for line in lines
    )
    return (
        "<div class=head><div>"
        f"<h1>Invoice {escape(invoice['number'])}</h1>"
        f"<p class=amount>{money(_headline(invoice), currency)}</p>"
        f"<p class=quiet>{_when(invoice)}</p></div>"
        f"<span class='status {status}'>{status.capitalize()}</span></div>"
        f"{_facts(invoice)}"
        "<table><thead><tr><th>Description</th><th>Amount</th></tr></thead>"
        f"<tbody>{rows}</tbody><tfoot>{_totals(invoice)}</tfoot></table>"
        f"{_what_next(call, invoice)}"
    )


def _headline(invoice: Document) -> int:
    paid = invoice["status"] == "paid"
    return int(invoice["amount_paid"] if paid else invoice["amount_remaining"])


def _when(invoice: Document) -> str:
    moved = invoice["status_transitions"]
    if invoice["status"] == "paid":
        return f"Paid on {day(moved['paid_at'])}"
    if invoice["status"] == "void":
        return f"Voided on {day(moved['voided_at'])}"
    if invoice["due_date"] is not None:
        return f"Due on {day(invoice['due_date'])}"
    return f"Issued on {day(moved['finalized_at'])}"


def _period(line: Document) -> str:
    start, end = line["period"]["start"], line["period"]["end"]
    return "" if start == end else f"{day(start)} – {day(end)}"  # noqa: RUF001 (a range)


def _facts(invoice: Document) -> str:
    facts = [
        ("To", invoice["customer_name"]),
        ("Email", invoice["customer_email"]),
        ("Issued", day(invoice["status_transitions"]["finalized_at"])),
        ("Memo", invoice["description"]),
    ]
    return (
        "<dl>"
        + "".join(f"<dt>{name}<dd>{escape(value)}" for name, value in facts if value)
        + "</dl>"
    )


def _totals(invoice: Document) -> str:
    currency = invoice["currency"]
    rows = [("Subtotal", invoice["subtotal"], ""), ("Total", invoice["total"], "")]
    applied = invoice["amount_due"] - invoice["total"]
    if applied:
        rows.append(("Customer balance", applied, ""))
    rows.append(("Amount due", invoice["amount_due"], "due"))
    return "".join(
        f"<tr class='{mark}'><td>{name}</td><td>{money(amount, currency)}</td></tr>"
        for name, amount, mark in rows
    )


def _what_next(call: Call, invoice: Document) -> str:
    if invoice["status"] == "paid":
        return "<p class='note good'>This invoice is paid. Thank you.</p>"
    if invoice["status"] not in MOVES["pay"]:
        return "<p class=note>This invoice was voided; nothing is owed.</p>"
    intent = payment_intents.of_invoice(call, invoice) or {}
    base = f"/i/acct_sandbox/{invoice['_page_token']}"
    if intent.get("status") == "requires_action":
        return (
            "<h2>Your bank wants to know it is you</h2>"
            f"<form method=post action='{base}/authenticate'>"
            "<button name=answer value=approve>Complete authentication</button>"
            "<button class=second name=answer value=fail>Fail authentication</button></form>"
        )
    failed = intent.get("last_payment_error")
    note = f"<p class='note bad' role=alert>{escape(failed['message'])}</p>" if failed else ""
    cards = "".join(
        f"<label><input type=radio name=card value={number}{' checked' if place == 0 else ''}>"
        f"<span>{BY_NUMBER[number].brand.capitalize()} •••• {number[-4:]}</span>"
        f"<small>{what}</small></label>"
        for place, (number, what) in enumerate(OFFERED)
    )
    amount = money(invoice["amount_remaining"], invoice["currency"])
    return (
        f"{note}<h2>Pay with a test card</h2><form method=post action='{base}/pay'>"
        f"<fieldset>{cards}</fieldset><button>Pay {amount}</button></form>"
    )
