"""Reads of contracts. Each needs the tenant's door open."""

from datetime import UTC, datetime
from uuid import UUID

from django.db.models import Q

from billing.pricing.book import PublishedBook
from billing.pricing.contract import Contract, Terms
from billing.pricing.entry import Entry
from billing.pricing.entry_json import stored_entry
from billing.pricing.models import ContractEvent, TenantContract
from billing.pricing.queries import prices_of, published_version


def contracts_between(start: datetime, end: datetime) -> list[Contract]:
    """The contracts that hold somewhere in [start, end), in the order of time."""
    if not TenantContract.objects.any_row():
        return []
    rows = TenantContract.objects.filter(starts_at__lt=end).filter(
        Q(ends_at__isnull=True) | Q(ends_at__gt=start)
    )
    return [
        contract_of(row)
        for row in rows.select_related("book").order_by("starts_at")
        if row.ends_at is None or row.ends_at > row.starts_at  # not ended before it began
    ]


def had_contract(before: datetime) -> bool:
    """Whether any contract was to hold at an instant before; one that was called off counts."""
    return bool(TenantContract.objects.filter(starts_at__lt=before).exists())


def contract_at(instant: datetime) -> Contract | None:
    """The contract that holds at an instant."""
    if not TenantContract.objects.any_row():
        return None
    holds = Q(ends_at__isnull=True) | Q(ends_at__gt=instant)
    row = (
        TenantContract.objects.filter(holds, starts_at__lte=instant).select_related("book").first()
    )
    return contract_of(row) if row is not None else None


def list_contracts() -> list[Contract]:
    """All of them, the newest first."""
    rows = TenantContract.objects.select_related("book").order_by("-number")
    return [contract_of(row) for row in rows]


def contract_by_id(contract_id: UUID) -> Contract | None:
    """One contract of the tenant; None if it has no such contract."""
    row = TenantContract.objects.select_related("book").filter(id=contract_id).first()
    return contract_of(row) if row is not None else None


def events_of(contract_id: UUID) -> list[ContractEvent]:
    """What happened to a contract, the first thing first."""
    rows = ContractEvent.objects.filter(contract_id=contract_id)
    return sorted(rows, key=lambda each: (each.at, each.before is not None))


def book_of_tenant(at: datetime) -> PublishedBook | None:
    """The version whose prices requests are admitted at: the contract's, or the standard one."""
    contract = contract_at(at)
    if contract is None:
        return published_version(at)
    pinned = contract.terms.pinned_at(at)
    return published_version(at, contract.terms.book) if pinned is None else prices_of(pinned)


def agreed_entries(at: datetime) -> list[Entry]:
    """The entries of contracts that hold at an instant or begin later: a request is held at the
    dearest of them, so that one which begins by the clock alone changes nothing."""
    last = datetime.max.replace(tzinfo=UTC)
    return [entry for each in contracts_between(at, last) for entry in each.terms.entries]


def contract_of(row: TenantContract) -> Contract:
    """The row as a value."""
    return Contract(
        id=row.id,
        number=row.number,
        terms=Terms(
            book=row.book.name,
            currency=row.currency,
            starts_at=row.starts_at,
            ends_at=row.ends_at,
            pinned_version_id=row.pinned_version_id,
            pinned_until=row.pinned_until,
            discount_percent=row.discount_percent,
            commitment_minor=row.commitment_minor,
            minimum_minor=row.minimum_minor,
            maximum_minor=row.maximum_minor,
            entries=tuple(stored_entry(each, row.id) for each in row.entries),
            note=row.note,
        ),
        created_at=row.created_at,
        created_by=row.created_by,
        supersedes_id=row.supersedes_id,
    )
