"""Credit of a tenant, the usage it pays for, and what the books say of both."""

from datetime import datetime
from typing import Any
from uuid import UUID

from billing.credits import queries
from billing.credits.grant import grant
from billing.credits.models import CreditGrant, CreditMovement, CreditRemaining
from billing.credits.terms import GrantTerms
from billing.invoicing.models import Invoice, InvoiceLine
from billing.ledger.queries import balances
from meterplane.kernel import clock
from tenants.scoping import tenant_scope
from tests.billing.world import ingest, used
from tests.conftest import OnboardedOrganisation

TOKENS_A_CENT = 20_000  # of minilm's input


def give(tenant: OnboardedOrganisation, minor: int, key: str = "", **terms: Any) -> UUID:
    """Grant promotional credit, unless told otherwise. `key` names it, and is its reason."""
    values = {"kind": "promotional", "currency": "USD", "reason": key} | terms
    return grant(
        tenant_id=tenant.id,
        terms=GrantTerms(amount_minor=minor, **values),
        idempotency_key=key or f"{minor} {terms}",
        created_by="tests",
    )


def spend(tenant: OnboardedOrganisation, version: UUID, at: datetime, cents: int) -> None:
    """Usage of one line of an invoice, minilm's input, over so many cents."""
    with clock.frozen(max(at, clock.now())):  # what comes from the future is not taken in
        ingest(used(tenant, version, at, "minilm", tokens_in=cents * TOKENS_A_CENT))


def remaining(tenant: OnboardedOrganisation) -> dict[str, int]:
    """What is left of each grant, by its reason; what became nothing is not there."""
    with tenant_scope(tenant.id):
        rows = CreditRemaining.objects.filter(remaining_minor__gt=0).select_related("grant")
        return {row.grant.reason: row.remaining_minor for row in rows}


def moved(tenant: OnboardedOrganisation) -> list[tuple[str, str, int]]:
    """(kind, reason of the grant, amount) of every movement, in time; of one instant as told here.

    What is drawn first comes first, then what is given back, refunded, rolled over, written off.
    """
    rank = ["drawn", "restored", "refunded", "rolled_over", "expired", "disputed", "reinstated"]
    with tenant_scope(tenant.id):
        rows = sorted(
            CreditMovement.objects.select_related("grant"),
            key=lambda row: (row.recorded_at, rank.index(row.kind), row.position),
        )
    return [(row.kind, row.grant.reason, row.amount_minor) for row in rows]


def credit_of(tenant: OnboardedOrganisation, invoice: Invoice | None) -> list[tuple[str, int]]:
    """(reason, amount) of the credit lines of an invoice, in order."""
    assert invoice is not None
    with tenant_scope(tenant.id):
        reasons = dict(CreditGrant.objects.values_list("id", "reason"))
        lines = InvoiceLine.objects.filter(invoice_id=invoice.id, credit_grant_id__isnull=False)
        return [
            (reasons[line.credit_grant_id], line.amount_minor)
            for line in lines.order_by("position")
        ]


def booked(tenant: OnboardedOrganisation) -> dict[str, int]:
    """What each account of the ledger holds; those that hold nothing left out."""
    with tenant_scope(tenant.id):
        return {each.account: each.balance_minor for each in balances() if each.balance_minor}


def check_conservation(tenant: OnboardedOrganisation) -> None:
    """Of every grant what was granted is accounted for, and the ledger holds what remains."""
    with tenant_scope(tenant.id):
        sums = {"purchased": 0, "promotional": 0}
        movements = list(CreditMovement.objects.values_list("grant_id", "kind", "amount_minor"))
        for row in CreditRemaining.objects.select_related("grant"):
            went = dict.fromkeys(CreditMovement.Kind.values, 0)
            for grant_id, kind, amount_minor in movements:
                went[kind] += amount_minor if grant_id == row.grant_id else 0
            assert row.grant.amount_minor == (
                row.remaining_minor
                + went["drawn"]
                - went["restored"]
                + went["expired"]
                + went["refunded"]
                + went["rolled_over"]
                + went["disputed"]
                - went["reinstated"]
            )
            sums[row.grant.kind] += row.remaining_minor
        derived = queries.remaining_derived()
        shown = dict(CreditRemaining.objects.values_list("grant_id", "remaining_minor"))
        assert derived == shown
    books = booked(tenant)
    assert books.get("credits:purchased", 0) == -sums["purchased"]
    assert books.get("credits:promotional", 0) == -sums["promotional"]
    assert sum(books.values()) == 0
