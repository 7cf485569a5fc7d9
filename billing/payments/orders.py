"""The lines that are sent to the provider: all of an invoice's, or sums of them where it has more
than the provider takes.

Summed lines share a key, the finest of `KEYS` under which few enough are left; taxes on top stay
lines of their own. A sum's uid is made of its lines' uids, so that what is there can be compared
with what is here, as for any line; all lines are in the CSV that the invoice's text links to.

Guarantees: the amounts add up to the invoice's total, summed or not. The same lines give the same
orders, whatever their order.
"""

import hashlib
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple
from uuid import UUID

from billing.invoicing.models import InvoiceLine, InvoiceTax
from billing.payments.provider import LineOrder
from meterplane.kernel.invariant import ensure

_Key = tuple[str, ...]


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
        for row in InvoiceTax.objects.filter(invoice_id=invoice_id, mode="exclusive")
        .select_related("invoice")
        .order_by("position")
    ]
    return [*summed(lines, lines_max - len(taxes)), *taxes]


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
