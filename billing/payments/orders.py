"""The lines that are sent to the provider: all of an invoice's, or sums of them where it has more
than the provider takes.

Summed lines share a key, the finest of `KEYS` under which few enough are left; taxes on top stay
lines of their own. A sum's uid is made of its lines' uids, so that what is there can be compared
with what is here, as for any line; all lines are in the CSV that the invoice's text links to.

Of an invoice that Stripe taxes, what is below zero (credit, discounts, corrections, interim
invoices) is taken off the lines above it in proportion, for Stripe Tax refuses negative lines; each
line says what was taken off. The taxes themselves are no lines there.

Guarantees: the amounts add up to the invoice's total, summed or not, less what Stripe puts on top.
The same lines give the same orders, whatever their order. Of lines that were netted none is below
zero, and none is more than it was.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple
from uuid import UUID

from billing.invoicing.close import DESCRIPTION_CHARS_MAX
from billing.invoicing.models import Invoice, InvoiceLine, InvoiceTax, TaxedBy
from billing.payments.provider import LineOrder
from meterplane.kernel.invariant import ensure
from meterplane.kernel.money import minor_to_text, split_by_largest_remainder

_Key = tuple[str, ...]
# Of what was taken off a line: how many are named, and how much of each name.
NAMED_MAX, NAME_CHARS_MAX = 3, 40


class Told(NamedTuple):
    """A line, and what it may be summed by. `month` is that of the usage, 2026-10."""

    order: LineOrder
    kind: str
    month: str
    meter: str
    model: str


# Documented in the README: from fine to coarse. The last leaves one line of each kind.
KEYS: tuple[Callable[[Told], _Key], ...] = (
    lambda line: (line.kind, line.month, line.meter, line.model),
    lambda line: (line.kind, line.month, line.meter),
    lambda line: (line.kind, line.month),
    lambda line: (line.kind,),
)


def line_orders(invoice_id: UUID, lines_max: int) -> list[LineOrder]:
    """What is sent for an invoice, in its order. Needs the tenant's door."""
    lines = [
        Told(
            LineOrder(
                str(row.id), row.description, row.amount_minor, row.period_start, row.period_end
            ),
            row.kind,
            f"{row.period_start:%Y-%m}",
            row.meter,
            row.model,
        )
        for row in InvoiceLine.objects.filter(invoice_id=invoice_id).order_by("position")
    ]
    # Each tax on top of the lines is a line of its own: so they add up to the total.
    taxes = [
        LineOrder(
            str(row.id),
            str(row),
            row.amount_minor,
            row.invoice.period_start,
            row.invoice.period_end,
        )
        for row in InvoiceTax.objects.filter(
            invoice_id=invoice_id, mode="exclusive", rate__isnull=False
        )
        .select_related("invoice")
        .order_by("position")
    ]
    orders = [*summed(lines, lines_max - len(taxes)), *taxes]
    invoice = Invoice.objects.get(id=invoice_id)
    return netted(orders, invoice.currency) if invoice.taxed_by == TaxedBy.STRIPE else orders


def netted(orders: Sequence[LineOrder], currency: str) -> list[LineOrder]:
    """The orders that are not below zero, less those that are: by largest remainder, in proportion
    to what they are. Their sum is not below zero."""
    kept = [order for order in orders if order.amount_minor >= 0]
    off = [order for order in orders if order.amount_minor < 0]
    off_minor = -sum(order.amount_minor for order in off)
    ensure(off_minor <= sum(order.amount_minor for order in kept), "no more is taken off than is")
    if not off:
        return kept
    parts = split_by_largest_remainder(off_minor, [order.amount_minor for order in kept])
    names = [order.description[:NAME_CHARS_MAX].strip() for order in off[:NAMED_MAX]]
    if len(off) > NAMED_MAX:
        names.append(f"{len(off) - NAMED_MAX} more")
    return [
        _less(order, part, currency, "; ".join(names))
        for order, part in zip(kept, parts, strict=True)
    ]


def _less(order: LineOrder, part_minor: int, currency: str, names: str) -> LineOrder:
    if not part_minor:
        return order
    was, part = (minor_to_text(each, currency) for each in (order.amount_minor, part_minor))
    said = f" ({was} {currency} less {part} of: {names})"
    text = order.description
    room = DESCRIPTION_CHARS_MAX - len(said)
    text = text if len(text) <= room else f"{text[: room - 3]}..."
    return replace(order, description=text + said, amount_minor=order.amount_minor - part_minor)


def summed(lines: Sequence[Told], lines_max: int) -> list[LineOrder]:
    """At most `lines_max` orders for the lines; the lines themselves where they are few enough."""
    if len(lines) <= lines_max:
        return [line.order for line in lines]
    for key in KEYS:
        ordered = sorted(lines, key=lambda line: (key(line), line.order.uid))
        groups = [(at, [each.order for each in group]) for at, group in groupby(ordered, key)]
        if len(groups) <= lines_max:
            return [_sum(at, orders) for at, orders in groups]
    ensure(False, "kinds of lines are fewer than an invoice at the provider may have")
    return []


def _sum(key: _Key, orders: Sequence[LineOrder]) -> LineOrder:
    if len(orders) == 1:
        return orders[0]
    uids = " ".join(order.uid for order in orders)
    return LineOrder(
        uid=f"sum_{hashlib.sha256(uids.encode()).hexdigest()[:32]}",
        description=f"{', '.join(part for part in key if part)}: sum of {len(orders)} lines",
        amount_minor=sum(order.amount_minor for order in orders),
        starts_at=min(order.starts_at for order in orders),
        ends_at=max(order.ends_at for order in orders),
    )
