"""Disputes as JSON and as CSV: the same rows and names, wherever they are asked for.

Those whose evidence is due first come first, then those that are over, the newest first. Amounts
are decimal texts in the currency beside them.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import F, Prefetch, Q, QuerySet

from billing.payments.dispute_models import OVER
from billing.payments.disputed import sums_by_kind
from billing.payments.models import Dispute, DisputeMovement
from meterplane.kernel.money import minor_to_text
from meterplane.metering.usage_written import literal

ROWS_MAX = 1000
STATES: Mapping[str, Q] = {
    "open": ~Q(status__in=OVER),
    "closed": Q(status__in=OVER),
    "parked": Q(tenant=None),
}
_K = DisputeMovement.Kind
COLUMNS = (
    "id", "provider_dispute_id", "organisation", "status", "reason", "amount", "currency",
    "evidence_due_at", "has_evidence", "invoice", "invoice_number", "top_up", "withdrawn",
    "reinstated", "fees", "credit_taken", "lost", "note", "opened_at", "closed_at",
)  # fmt: skip


def disputes_listed(state: str = "", which: Q | None = None) -> "QuerySet[Dispute]":
    """At most `ROWS_MAX`, in a state (see `STATES`) or all. Needs a door."""
    rows = Dispute.objects.filter(STATES.get(state, Q()), which or Q())
    return with_all(rows).order_by(
        F("closed_at").desc(nulls_first=True), F("evidence_due_at").asc(nulls_last=True), "-id"
    )[:ROWS_MAX]


def dispute_by_id(dispute_id: UUID) -> Dispute | None:
    """One, with what it moved. Needs a door."""
    return with_all(Dispute.objects.filter(id=dispute_id)).first()


def with_all(rows: "QuerySet[Dispute]") -> "QuerySet[Dispute]":
    """With what a row tells of: three reads for any number of them."""
    movements = DisputeMovement.objects.order_by("recorded_at", "id")
    return rows.select_related("tenant", "invoice").prefetch_related(
        Prefetch("movements", queryset=movements)
    )


def row_of(dispute: Dispute) -> dict[str, Any]:
    """A dispute, and what it comes to. `lost` is less what came back of it later."""
    moved = list(dispute.movements.all())
    sums = sums_by_kind(moved)

    def amount(amount_minor: int) -> str:
        return minor_to_text(amount_minor, dispute.currency)

    return {
        "id": dispute.id,
        "provider_dispute_id": dispute.provider_dispute_id,
        "organisation": dispute.tenant.slug if dispute.tenant is not None else None,
        "status": dispute.status,
        "reason": dispute.reason,
        "amount": amount(dispute.amount_minor),
        "currency": dispute.currency,
        "evidence_due_at": dispute.evidence_due_at,
        "has_evidence": dispute.has_evidence,
        "invoice": dispute.invoice_id,
        "invoice_number": dispute.invoice.number if dispute.invoice is not None else None,
        "top_up": dispute.top_up_id,
        "withdrawn": amount(sums[_K.WITHDRAWN]),
        "reinstated": amount(sums[_K.REINSTATED]),
        "fees": _fees(moved),
        "credit_taken": amount(sums[_K.CREDIT_TAKEN] - sums[_K.CREDIT_RETURNED]),
        "lost": amount(sums[_K.LOST] - sums[_K.RECOVERED]),
        "note": dispute.note,
        "opened_at": dispute.opened_at,
        "closed_at": dispute.closed_at,
    }


def movements_of(dispute: Dispute) -> list[dict[str, Any]]:
    """Everything it moved, in order."""
    return [
        {
            "id": row.id,
            "kind": row.kind,
            "amount": minor_to_text(row.amount_minor, row.currency),
            "currency": row.currency,
            "owed": minor_to_text(row.owed_minor, row.currency),
            "balance": minor_to_text(row.balance_minor, row.currency),
            "provider_transaction_id": row.provider_transaction_id,
            "at": row.at,
        }
        for row in dispute.movements.all()
    ]


def csv_text(disputes: Iterable[Dispute]) -> str:
    """A header and a row each; instants as in JSON, and nothing where there is none."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for dispute in disputes:
        row = row_of(dispute)
        writer.writerow([_cell(row[name]) for name in COLUMNS])
    return file.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, list):
        return " + ".join(f"{fee['amount']} {fee['currency']}" for fee in value)
    return literal(str(value))


def _fees(moved: Sequence[DisputeMovement]) -> list[dict[str, str]]:
    """What is left of fees, by currency: the account's need not be the payment's."""
    sums: dict[str, int] = defaultdict(int)
    for row in moved:
        if row.kind == _K.FEE_CHARGED:
            sums[row.currency] += row.amount_minor
        elif row.kind == _K.FEE_RETURNED:
            sums[row.currency] -= row.amount_minor
    return [
        {"amount": minor_to_text(amount_minor, currency), "currency": currency}
        for currency, amount_minor in sorted(sums.items())
        if amount_minor
    ]
