"""Post entries: the only writer of the ledger.

Guarantees: one entry for one (tenant, kind, source), whatever is repeated or raced. The same
content again answers with the first entry's id; other content raises. It commits with the caller's
transaction or not at all, and the balances with it.

Concurrency. Two postings of a tenant touch the same few balances, `receivable` most of all, so they
follow one another whatever is done. A lock per tenant, held until commit and taken before anything
is read, makes that a queue: the second poster of a source finds what the first one committed, and
balances, which the trigger then writes in order of account, cannot deadlock with one another,
also when a transaction posts several entries. Other tenants do not wait.

The limit: it is a lock like any other. Take every lock of your own first (an invoice's, a series',
a grant's) and post last. A transaction that posts for several tenants holds all of their ledgers:
none of ours does.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db import connection

from billing.ledger.entry import Entry
from billing.ledger.entry import Leg as Leg
from billing.ledger.models import LedgerEntry, LedgerLeg
from meterplane.kernel.invariant import InvariantBroken
from tenants.scoping import current_tenant_id


class PostedDifferently(InvariantBroken):
    """A source is posted already, and moved something else. Nothing is overwritten."""


def post(
    *,
    kind: str,
    source_id: UUID | str,
    currency: str,
    legs: Sequence[Leg],
    at: datetime,
    memo: str = "",
) -> UUID:
    """Post what happened to a source; the entry's id. Needs the tenant's door.

    `at` is when it happened. Raises `InvariantBroken` for an entry that is not whole (see `entry`),
    and `PostedDifferently`.
    """
    return post_entry(Entry(kind, str(source_id), currency, tuple(legs), at, memo))


def post_entry(entry: Entry) -> UUID:
    """`post` of an entry that is made already."""
    tenant_id = current_tenant_id()
    _one_poster_at_a_time(tenant_id)
    known = LedgerEntry.objects.filter(kind=entry.kind, source_id=entry.source_id).first()
    if known is not None:
        if known.content_hash != entry.content_hash:
            raise PostedDifferently(
                f"{entry.kind} of {entry.source_id} is entry {known.id}, with other legs"
            )
        found: UUID = known.id
        return found
    made = LedgerEntry.objects.create(
        tenant_id=tenant_id,
        kind=entry.kind,
        source_id=entry.source_id,
        currency=entry.currency,
        leg_count=len(entry.legs),
        content_hash=entry.content_hash,
        memo=entry.memo,
        effective_at=entry.at,
    )
    # One statement: the trigger on it brings each balance forward once, in order of account.
    LedgerLeg.objects.bulk_create(
        LedgerLeg(
            tenant_id=tenant_id,
            entry=made,
            position=position,
            account=leg.account,
            currency=entry.currency,
            amount_minor=leg.amount_minor,
        )
        for position, leg in enumerate(entry.legs, start=1)
    )
    posted: UUID = made.id
    return posted


def _one_poster_at_a_time(tenant_id: UUID) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"ledger.post:{tenant_id}"]
        )
