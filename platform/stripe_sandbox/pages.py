"""The hosted invoice: a finalized invoice to look at and pay with a test card.

Knowing an invoice's address is the permission to see it, as at Stripe.
"""

from collections.abc import Callable
from html import escape
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from stripe_sandbox import charges, payment_intents, payments
from stripe_sandbox.call import Call
from stripe_sandbox.cards import TestCard
from stripe_sandbox.errors import StripeError
from stripe_sandbox.invoice_moves import MOVES
from stripe_sandbox.invoice_totals import MAX_LINES
from stripe_sandbox.page_frame import (
    TO_PAY,
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
from stripe_sandbox.render import lines_of, public
from stripe_sandbox.store import Document, Store

_Act: TypeAlias = Callable[[Call, Document], None]


async def show(request: Request) -> Response:
    """One finalized invoice."""
    token = request.path_params["token"]

    def read(store: Store) -> str | None:
        invoice = _by_token(store, token)
        return None if invoice is None else _invoice(call_of(request, store), invoice)

    turned_away = stranger(request)
    if turned_away is not None:
        return turned_away
    body = await sandbox_of(request).ledger.run(read)
    return nothing_here() if body is None else framed("Invoice", body)


async def pay(request: Request) -> Response:
    """Pay with the chosen test card; declines are shown on the page they lead back to."""
    card = chosen(await form(request), TO_PAY)

    def act(call: Call, invoice: Document) -> None:
        _pay_with(call, invoice, card)

    return await _act(request, act)


async def authenticate(request: Request) -> Response:
    """Answer the issuer's question."""
    proven = (await form(request)).get("answer") == "approve"

    def act(call: Call, invoice: Document) -> None:
        intent = payment_intents.of_invoice(call, invoice)
        if intent is not None and intent["status"] == "requires_action":
            payments.authenticate(call, invoice, proven=proven)

    return await _act(request, act)


async def turned_away(request: Request, refused: Exception) -> Response:
    """What a page's act refuses, as a page."""
    status = refused.status if isinstance(refused, StripeError) else 400
    return framed("Refused", f"<h1>Refused</h1><p class=quiet>{escape(str(refused))}</p>", status)


def _pay_with(call: Call, invoice: Document, card: TestCard) -> None:
    method = make_card(call, card)
    payments.charge(call, invoice, method)


async def _act(request: Request, act: _Act) -> Response:
    token = request.path_params["token"]

    def write(store: Store) -> bool:
        with store.transaction():
            invoice = _by_token(store, token)
            if invoice is None:
                return False
            if invoice["status"] in MOVES["pay"]:  # a second click finds it paid and does nothing
                act(call_of(request, store), invoice)
            return True

    turned_away = stranger(request)
    if turned_away is not None:
        return turned_away
    if not await sandbox_of(request).ledger.run(write):
        return nothing_here()
    sandbox_of(request).background.wake()
    return sent_to(f"/i/acct_sandbox/{token}")


def _by_token(store: Store, token: str) -> Document | None:
    rows = store.select("invoice", [("json_extract(body, '$._page_token') = ?", token)], limit=1)
    return rows[0] if rows else None


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
        f"<p class=quiet>{_when(invoice)} ·"
        f" <a href='/i/acct_sandbox/{invoice['_page_token']}/pdf'>PDF</a></p></div>"
        f"<span class='status {status}'>{status.capitalize()}</span></div>"
        f"{_facts(invoice)}"
        "<table><thead><tr><th>Description</th><th>Amount</th></tr></thead>"
        f"<tbody>{rows}</tbody><tfoot>{_totals(call, invoice)}</tfoot></table>"
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
    return facts(
        [
            ("To", invoice["customer_name"]),
            ("Email", invoice["customer_email"]),
            ("Issued", day(invoice["status_transitions"]["finalized_at"])),
            ("Memo", invoice["description"]),
        ]
    )


def _totals(call: Call, invoice: Document) -> str:
    currency = invoice["currency"]
    rows = [("Subtotal", invoice["subtotal"], "")]
    for tax in invoice["total_taxes"]:
        inside = " (included)" if tax["tax_behavior"] == "inclusive" else ""
        rows.append((f"{_tax_name(call, tax)}{inside}", tax["amount"], ""))
    rows.append(("Total", invoice["total"], ""))
    credited = invoice["pre_payment_credit_notes_amount"]
    applied = invoice["amount_due"] - invoice["total"] + credited
    if applied:
        rows.append(("Customer balance", applied, ""))
    if credited:
        rows.append(("Credit notes", -credited, ""))
    rows.append(("Amount due", invoice["amount_due"], "due"))
    return "".join(
        f"<tr class='{mark}'><td>{name}</td><td>{money(amount, currency)}</td></tr>"
        for name, amount, mark in rows
    )


def _tax_name(call: Call, tax: Document) -> str:
    rate = call.store.find("tax_rate", tax["tax_rate_details"]["tax_rate"])
    return "Tax" if rate is None else f"{escape(rate['display_name'])} {rate['_percentage']}%"


def _what_next(call: Call, invoice: Document) -> str:
    intent = payment_intents.of_invoice(call, invoice)
    if invoice["status"] == "paid":
        charge = charges.of_intent(call, intent)
        receipt = ""
        if charge is not None:
            receipt = f" <a href='{public(call, charge)['receipt_url']}'>Receipt</a>"
        return f"<p class='note good'>This invoice is paid. Thank you.{receipt}</p>"
    if invoice["status"] not in MOVES["pay"]:
        return "<p class=note>This invoice was voided; nothing is owed.</p>"
    intent = intent or {}
    base = f"/i/acct_sandbox/{invoice['_page_token']}"
    if intent.get("status") == "requires_action":
        return bank_asks(f"{base}/authenticate")
    failed = intent.get("last_payment_error") or {}
    amount = money(invoice["amount_remaining"], invoice["currency"])
    return (
        f"{alert(failed.get('message'))}<h2>Pay with a test card</h2>"
        f"<form method=post action='{base}/pay'>{cards(TO_PAY)}<button>Pay {amount}</button></form>"
    )
