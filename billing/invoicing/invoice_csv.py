"""An invoice as CSV: its lines, which add up to its total, and the usage behind them.

Guarantees: the amounts of the first file add up to the total, taxes on top included, to the minor
unit; the quantities of the second add up to each line's quantity. Both are checked before a byte
leaves. There is no row of totals: a column can be added up as it is.

What people named (models, projects, keys) cannot run as a formula in a spreadsheet.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from uuid import UUID

from billing.invoicing.account import whole
from billing.invoicing.line_events import slice_of
from billing.invoicing.models import Invoice, InvoiceLine, InvoiceTax
from meterplane.kernel.decimals import decimal_to_text
from meterplane.kernel.invariant import ensure
from meterplane.kernel.money import minor_to_text, pico_to_text
from meterplane.metering import counted_events
from meterplane.metering.usage_written import literal
from tenants.queries import list_keys, list_projects
from tenants.scoping import tenant_scope

LINE_HEADER = (
    "kind", "position", "line", "model", "tier", "meter", "description", "quantity", "unit_price",
    "price_model", "amount", "currency", "period_start", "period_end", "late",
)  # fmt: skip
USAGE_HEADER = (
    "line", "position", "day", "project", "project_id", "key", "key_id", "model", "tier", "meter",
    "requests", "quantity", "period_start", "period_end", "late",
)  # fmt: skip
NOT_TOLD_APART = "(not told apart)"

Row = Sequence[object]


def lines_csv(invoice_id: UUID) -> str | None:
    """The lines and the taxes on top of them; None without such an invoice. Needs the door."""
    invoice = Invoice.objects.filter(id=invoice_id).first()
    if invoice is None:
        return None
    lines = InvoiceLine.objects.filter(invoice_id=invoice_id).order_by("position")
    taxes = InvoiceTax.objects.filter(invoice_id=invoice_id, mode="exclusive").order_by("position")
    rows = [_line(line, invoice) for line in lines]
    rows += [_tax(tax, len(rows) + n, invoice) for n, tax in enumerate(taxes, start=1)]
    amount = LINE_HEADER.index("amount")
    total = sum((Decimal(str(row[amount])) for row in rows), Decimal())
    ensure(
        total == Decimal(minor_to_text(invoice.total_minor, invoice.currency)),
        f"the CSV of invoice {invoice.id} adds up to its total",
    )
    return _text([LINE_HEADER, *rows])


def usage_csv(tenant_id: UUID, invoice_id: UUID) -> Iterator[bytes]:
    """Who used what is on the invoice, by day: a block for each line. Opens the doors itself.

    Raises `CallerError` `events_archived` before the first block.
    """
    with tenant_scope(tenant_id):
        lines = list(
            InvoiceLine.objects.filter(invoice_id=invoice_id)
            .select_related("invoice__period")
            .order_by("position")
        )
        for line in lines:
            if part := slice_of(line, line.invoice):
                counted_events.refuse_archived(part)
        projects = {project.id: project.name for project in list_projects()}
        keys = {key.id: key.name for key in list_keys()}
    return _usage_blocks(tenant_id, lines, projects, keys)


def _usage_blocks(
    tenant_id: UUID, lines: list[InvoiceLine], projects: dict[UUID, str], keys: dict[UUID, str]
) -> Iterator[bytes]:
    yield _text([USAGE_HEADER]).encode()
    for line in lines:
        with tenant_scope(tenant_id):
            rows = _usage(line, projects, keys)
        yield _text(rows).encode()


def _usage(line: InvoiceLine, projects: dict[UUID, str], keys: dict[UUID, str]) -> list[Row]:
    part = slice_of(line, line.invoice)
    if part is None:
        return []
    shares = counted_events.by_key_and_day(part)
    head = [str(line.id), line.position]
    of_line = [literal(line.model), line.service_tier, line.meter]
    tail = [line.period_start.isoformat(), line.period_end.isoformat(), _yes(line.is_late)]
    rows: list[Row] = [
        [
            *head,
            share.day.isoformat(),
            literal(projects.get(share.project_id, "")),
            share.project_id,
            literal(keys.get(share.key_id, "")),
            share.key_id,
            *of_line,
            share.events,
            share.units,
            *tail,
        ]
        for share in shares
    ]
    rest = whole(line.quantity) - sum(share.units for share in shares)
    if rest:
        # An adjustment, or a line from before snapshots were kept: shown, instead of being spread.
        of_events = part.is_exact and line.kind == InvoiceLine.Kind.USAGE and not line.contract_id
        ensure(not of_events, f"the events of line {line.id} add up to its quantity")
        rows.append([*head, "", NOT_TOLD_APART, "", "", "", *of_line, "", rest, *tail])
    return rows


def _line(line: InvoiceLine, invoice: Invoice) -> Row:
    return [
        line.kind,
        line.position,
        line.id,
        literal(line.model),
        line.service_tier,
        line.meter,
        literal(line.description),
        decimal_to_text(Decimal(line.quantity)),
        "" if line.unit_price_pico is None else pico_to_text(line.unit_price_pico),
        "" if line.price_model is None else json.dumps(line.price_model, sort_keys=True),
        minor_to_text(line.amount_minor, invoice.currency),
        invoice.currency,
        line.period_start.isoformat(),
        line.period_end.isoformat(),
        _yes(line.is_late),
    ]


def _tax(tax: InvoiceTax, position: int, invoice: Invoice) -> Row:
    return [
        "tax",
        position,
        tax.id,
        "",
        "",
        "",
        literal(str(tax)),
        "",
        "",
        "",
        minor_to_text(tax.amount_minor, invoice.currency),
        invoice.currency,
        invoice.period_start.isoformat(),
        invoice.period_end.isoformat(),
        "no",
    ]


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


def _text(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
