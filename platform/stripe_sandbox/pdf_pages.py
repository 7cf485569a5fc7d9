"""The PDFs behind `invoice_pdf` and a credit note's `pdf`: the figures, as plain text."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from stripe_sandbox.call import Call
from stripe_sandbox.invoice_totals import MAX_LINES
from stripe_sandbox.page_frame import call_of, day, money, nothing_here, sandbox_of, stranger
from stripe_sandbox.render import lines_of
from stripe_sandbox.store import Document, Store
from stripe_sandbox.text_pdf import written

_MARK = "SANDBOX - not Stripe. No money moves here."
_WIDTH = 90


async def invoice(request: Request) -> Response:
    """A finalized invoice."""
    return await _pdf(request, "invoice", _invoice_lines)


async def credit_note(request: Request) -> Response:
    """An issued credit note."""
    return await _pdf(request, "credit_note", _note_lines)


async def _pdf(
    request: Request, kind: str, lines: Callable[[Call, Document], list[str]]
) -> Response:
    def read(store: Store) -> bytes | None:
        where = [("json_extract(body, '$._page_token') = ?", request.path_params["token"])]
        found = store.select(kind, where, limit=1)
        return written([_MARK, "", *lines(call_of(request, store), found[0])]) if found else None

    turned_away = stranger(request)
    if turned_away is not None:
        return turned_away
    body = await sandbox_of(request).ledger.run(read)
    if body is None:
        return nothing_here()
    return Response(body, media_type="application/pdf", headers={"Cache-Control": "no-store"})


def _invoice_lines(call: Call, shown: Document) -> list[str]:
    currency = shown["currency"]
    rows = lines_of(call, shown["id"], MAX_LINES)["data"]
    return [
        f"Invoice {shown['number']}",
        f"Issued {day(shown['status_transitions']['finalized_at'])}, {shown['status']}",
        f"To {shown['customer_name'] or shown['customer']}",
        "",
        *(_row(line["description"] or "Item", line["amount"], currency) for line in rows),
        "",
        _row("Subtotal", shown["subtotal"], currency),
        *(_row("Tax", tax["amount"], currency) for tax in shown["total_taxes"]),
        _row("Total", shown["total"], currency),
        _row("Amount due", shown["amount_due"], currency),
    ]


def _note_lines(_: Call, shown: Document) -> list[str]:
    currency = shown["currency"]
    return [
        f"Credit note {shown['number']}",
        f"Issued {day(shown['effective_at'])}, {shown['status']}",
        *([shown["memo"]] if shown["memo"] else []),
        "",
        *(
            _row(line["description"] or "Item", line["amount"], currency)
            for line in shown["_lines"]
        ),
        "",
        _row("Total", shown["total"], currency),
    ]


def _row(name: str, amount_minor: int, currency: str) -> str:
    amount = money(amount_minor, currency).replace("\N{MINUS SIGN}", "-")
    return f"{name[:_WIDTH]}    {amount}"
