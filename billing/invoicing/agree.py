"""Agree on a contract with a tenant, replace it by another, and end it.

Guarantees: what was agreed never changes (PostgreSQL holds it too): a change is a new contract that
begins where the old one then ends. No two hold at one instant. A contract begins no earlier than
the period that is running: closed ones were rated by what held then. Every act is an event beside
the contract, with its state before and after.

Each verb holds the tenant's lock on closing, so that no period is closed meanwhile, and recompiles
the tenant's policies: requests are held at the prices of the contract's book from then on.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Max

from billing.invoicing.close import one_closer_at_a_time, open_period
from billing.pricing.book import METERS
from billing.pricing.contract import Contract, Terms
from billing.pricing.contract_json import contract_to_json
from billing.pricing.contract_queries import contract_of, list_contracts
from billing.pricing.contract_read import read_terms
from billing.pricing.entry_json import entry_to_json
from billing.pricing.models import ContractEvent, PriceBook, TenantContract
from billing.pricing.queries import DEFAULT_BOOK, prices_of, published_version
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from tenants import policy_port
from tenants.queries import organisation
from tenants.scoping import tenant_scope

Kind = ContractEvent.Kind


def agree(*, tenant_id: UUID, body: Mapping[str, Any], by: str) -> Contract:
    """Make a contract of decoded JSON (see `contract.read_terms`). It begins now unless it says.

    One that holds when the new one begins ends there. Raises `CallerError` naming the field, or 409
    `contract_overlaps` for one that begins while the new one holds.
    """
    with tenant_scope(tenant_id):
        one_closer_at_a_time(tenant_id)
        contract_id = uuid7()
        terms = read_terms(
            body,
            contract_id,
            book=DEFAULT_BOOK,
            currency=organisation().currency,
            now=clock.now(),
        )
        _check(terms)
        before = _superseded(terms)
        if before is not None:
            _end(before, terms.starts_at, Kind.SUPERSEDED, by)
        row = TenantContract.objects.create(
            id=contract_id,
            tenant_id=tenant_id,
            number=(TenantContract.objects.aggregate(newest=Max("number"))["newest"] or 0) + 1,
            note=terms.note,
            book=PriceBook.objects.get(name=terms.book),
            currency=terms.currency,
            starts_at=terms.starts_at,
            ends_at=terms.ends_at,
            pinned_version_id=terms.pinned_version_id,
            pinned_until=terms.pinned_until,
            discount_percent=terms.discount_percent,
            commitment_minor=terms.commitment_minor,
            minimum_minor=terms.minimum_minor,
            maximum_minor=terms.maximum_minor,
            entries=[entry_to_json(entry) for entry in terms.entries],
            supersedes_id=before.id if before is not None else None,
            created_by=by,
        )
        agreed = contract_of(row)
        _note(row, Kind.AGREED, by, None, agreed)
        policy_port.recompile(tenant_id)
    return agreed


def end(*, tenant_id: UUID, contract_id: UUID, at: datetime | None, by: str) -> Contract:
    """Let the contract end at an instant to come, or now. One that has not begun never holds.

    Raises `CallerError` 404 `contract_not_found`, or `contract_invalid` for an end that is in the
    past or later than the one agreed on.
    """
    now = clock.now()
    if at is not None and at < now:
        raise _invalid("at", "A contract ends now or later; what was billed stays.")
    with tenant_scope(tenant_id):
        one_closer_at_a_time(tenant_id)
        found = [each for each in list_contracts() if each.id == contract_id]
        if not found:
            raise CallerError("contract_not_found", "There is no such contract.", status=404)
        ends_at = max(at or now, found[0].terms.starts_at)
        agreed = found[0].terms.ends_at
        if agreed is not None and ends_at >= agreed:
            raise _invalid("at", f"This contract ends {agreed:%Y-%m-%d %H:%M:%S} UTC already.")
        ended = _end(found[0], ends_at, Kind.ENDED, by)
        policy_port.recompile(tenant_id)
    return ended


def _check(terms: Terms) -> None:
    """What must hold between the terms and everything else."""
    currency = organisation().currency
    if terms.currency != currency:
        raise CallerError(
            "currency_differs",
            f"The organisation is billed in {currency}; there is no conversion.",
            status=422,
            field="currency",
        )
    book = PriceBook.objects.filter(name=terms.book).first()
    if book is None:
        raise _invalid("book", f"There is no price book {terms.book!r}.")
    if book.currency != terms.currency:
        raise CallerError(
            "currency_differs",
            f"Book {terms.book!r} is in {book.currency}, the contract in {terms.currency}.",
            status=422,
            field="book",
        )
    if terms.pinned_version_id is not None:
        pinned = prices_of(terms.pinned_version_id)
        if pinned is None or pinned.book != terms.book:
            raise _invalid(
                "pinned_version", f"No version of {terms.book!r} with this id was published."
            )
    running = open_period().starts_at
    if terms.starts_at < running:
        raise _invalid(
            "starts_at",
            f"Usage before {running:%Y-%m-%d %H:%M:%S} UTC is invoiced: begin then or later.",
        )
    _check_meters(terms)


def _check_meters(terms: Terms) -> None:
    """Every usage of a declared meter that the contract prices has a price."""
    book = published_version(max(terms.starts_at, clock.now()), terms.book)
    everything = {
        entry.meter
        for entry in (*terms.entries, *(book.entries if book is not None else ()))
        if not entry.match
    }
    for entry in terms.entries:
        if entry.meter not in METERS and entry.meter not in everything:
            raise _invalid(
                "entries",
                f"{entry.meter} is priced for some usage only: add an entry of it without a match.",
            )


def _superseded(terms: Terms) -> Contract | None:
    """The contract that holds when the new one begins; raises where another would follow."""
    before = None
    ends_at = terms.ends_at
    for each in list_contracts():
        follows = terms.starts_at <= each.terms.starts_at != each.terms.ends_at
        if follows and (ends_at is None or each.terms.starts_at < ends_at):
            raise _overlaps(each)
        if each.holds_at(terms.starts_at):
            before = each
    return before


def _overlaps(other: Contract) -> CallerError:
    return CallerError(
        "contract_overlaps",
        f"Contract {other.number} begins {other.terms.starts_at:%Y-%m-%d %H:%M:%S} UTC: end it, or"
        " let this one end before.",
        status=409,
        field="starts_at",
    )


def _end(contract: Contract, at: datetime, kind: Kind, by: str) -> Contract:
    TenantContract.objects.filter(id=contract.id).update(ends_at=at)
    row = TenantContract.objects.select_related("book").get(id=contract.id)
    ended = contract_of(row)
    _note(row, kind, by, contract, ended)
    return ended


def _note(
    row: TenantContract, kind: Kind, by: str, before: Contract | None, after: Contract
) -> None:
    ContractEvent.objects.create(
        tenant_id=row.tenant_id,
        contract=row,
        kind=kind,
        by=by,
        before=None if before is None else contract_to_json(before),
        after=contract_to_json(after),
    )


def _invalid(field: str, message: str) -> CallerError:
    return CallerError("contract_invalid", message, status=422, field=field)
