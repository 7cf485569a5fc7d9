"""The front page: what this process holds, at a glance."""

from html import escape

from starlette.requests import Request
from starlette.responses import Response

from stripe_sandbox.page_frame import framed, money, sandbox_of, stranger
from stripe_sandbox.store import Document, Store

RECENT_ROWS = 20


async def home(request: Request) -> Response:
    """What this process is, and the latest invoices."""

    def read(store: Store) -> list[Document]:
        return store.select("invoice", limit=RECENT_ROWS)

    turned_away = stranger(request)
    if turned_away is not None:
        return turned_away
    return framed("Stripe sandbox", _front(await sandbox_of(request).ledger.run(read)))


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
