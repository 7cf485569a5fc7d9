"""Reads of the ledger: balances, the statement of an account, entries.

Each needs the tenant's door open, but for `entries_by_source`, which the audit calls in the
system's. Amounts are minor units; a debit is positive.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Q, Sum

from billing.ledger.accounts import Group, Side, account_of
from billing.ledger.entry import Leg
from billing.ledger.models import LedgerBalance, LedgerEntry, LedgerLeg
from meterplane.kernel.errors import CallerError

PAGE_MAX = 200
STATEMENT_LEGS_MAX = 10_000
_AS_POSTED = ("created_at", "id")  # ids alone: two of one millisecond are in no order


@dataclass(frozen=True, slots=True)
class BalanceView:
    """What an account holds, and how many legs made it."""

    account: str
    currency: str
    group: Group
    side: Side
    balance_minor: int
    leg_count: int


@dataclass(frozen=True, slots=True)
class EntryView:
    """An entry as it was posted."""

    tenant_id: UUID
    id: UUID
    kind: str
    source_id: str
    currency: str
    effective_at: datetime
    created_at: datetime
    memo: str
    content_hash: str
    legs: tuple[Leg, ...]


@dataclass(frozen=True, slots=True)
class StatementLine:
    """One leg of the account, and its balance after it."""

    entry_id: UUID
    kind: str
    source_id: str
    effective_at: datetime
    memo: str
    amount_minor: int
    balance_minor: int


@dataclass(frozen=True, slots=True)
class Statement:
    """An account from `since` until `until`, half-open, in order of what happened."""

    account: str
    currency: str
    since: datetime
    until: datetime
    opening_minor: int
    lines: tuple[StatementLine, ...]
    closing_minor: int


def balances() -> list[BalanceView]:
    """Of every account that was ever moved, by currency and name."""
    rows = LedgerBalance.objects.order_by("currency", "account")
    return [
        BalanceView(
            account=row.account,
            currency=row.currency,
            group=account_of(row.account).group,
            side=account_of(row.account).side,
            balance_minor=row.balance_minor,
            leg_count=row.leg_count,
        )
        for row in rows
    ]


def balance_of(account: str, currency: str) -> int:
    """Minor units; 0 of an account that was never moved."""
    account_of(account)
    found = LedgerBalance.objects.filter(account=account, currency=currency).first()
    return found.balance_minor if found is not None else 0


def statement(account: str, currency: str, since: datetime, until: datetime) -> Statement:
    """The account's legs that took effect in [since, until), with the balance after each.

    Raises `CallerError` `statement_too_long` beyond `STATEMENT_LEGS_MAX` legs.
    """
    account_of(account)
    of_account = LedgerLeg.objects.filter(account=account, currency=currency)
    before = of_account.filter(entry__effective_at__lt=since)
    opening_minor = int(before.aggregate(sum=Sum("amount_minor"))["sum"] or 0)
    # Two entries may be of one instant: the one that was posted first comes first.
    rows = (
        of_account.filter(entry__effective_at__gte=since, entry__effective_at__lt=until)
        .select_related("entry")
        .order_by("entry__effective_at", "entry__created_at", "entry_id", "position")
    )
    found = list(rows[: STATEMENT_LEGS_MAX + 1])
    if len(found) > STATEMENT_LEGS_MAX:
        raise CallerError(
            "statement_too_long",
            f"More than {STATEMENT_LEGS_MAX:,} movements: ask for a shorter span.",
            field="until",
        )
    balance_minor, lines = opening_minor, []
    for leg in found:
        balance_minor += leg.amount_minor
        lines.append(
            StatementLine(
                entry_id=leg.entry_id,
                kind=leg.entry.kind,
                source_id=leg.entry.source_id,
                effective_at=leg.entry.effective_at,
                memo=leg.entry.memo,
                amount_minor=leg.amount_minor,
                balance_minor=balance_minor,
            )
        )
    return Statement(account, currency, since, until, opening_minor, tuple(lines), balance_minor)


def list_entries(limit: int = PAGE_MAX, before: UUID | None = None) -> list[EntryView]:
    """Newest first, by when they were posted; `before`: those behind this entry.

    Raises `CallerError` `cursor_invalid` when the tenant has no such entry.
    """
    rows = LedgerEntry.objects.order_by("-created_at", "-id")
    if before is not None:
        last = rows.filter(id=before).values_list("created_at", "id").first()
        if last is None:
            raise CallerError("cursor_invalid", "There is no such entry.", field="cursor")
        rows = rows.filter(Q(created_at__lt=last[0]) | Q(created_at=last[0], id__lt=last[1]))
    return _views(list(rows[: min(limit, PAGE_MAX)]))


def entries_of(source_id: UUID | str) -> list[EntryView]:
    """All that was posted of a source, in order."""
    return _views(list(LedgerEntry.objects.filter(source_id=str(source_id)).order_by(*_AS_POSTED)))


def entries_by_source(
    kinds: Collection[str], source_ids: Collection[str]
) -> dict[tuple[UUID, str], list[EntryView]]:
    """By tenant and source, in order, what was posted of these kinds. Needs the system's door."""
    rows = LedgerEntry.objects.filter(kind__in=kinds, source_id__in=source_ids).order_by(
        *_AS_POSTED
    )
    found: dict[tuple[UUID, str], list[EntryView]] = defaultdict(list)
    for view in _views(list(rows)):
        found[view.tenant_id, view.source_id].append(view)
    return found


def _views(entries: list[LedgerEntry]) -> list[EntryView]:
    """Two reads for any number of entries."""
    legs: dict[UUID, list[Leg]] = defaultdict(list)
    rows = LedgerLeg.objects.filter(entry_id__in=[entry.id for entry in entries])
    for row in rows.order_by("entry_id", "position"):
        legs[row.entry_id].append(Leg(row.account, row.amount_minor))
    return [
        EntryView(
            tenant_id=entry.tenant_id,
            id=entry.id,
            kind=entry.kind,
            source_id=entry.source_id,
            currency=entry.currency,
            effective_at=entry.effective_at,
            created_at=entry.created_at,
            memo=entry.memo,
            content_hash=entry.content_hash,
            legs=tuple(legs[entry.id]),
        )
        for entry in entries
    ]
