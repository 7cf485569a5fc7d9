"""Entries as rows of a version, in their order."""

from collections.abc import Iterable
from uuid import UUID

from django.db import transaction
from django.db.models import Max

from billing.pricing.entry import Entry, match_of
from billing.pricing.models import PriceBookVersion, PriceEntry
from billing.pricing.price_model import price_model_to_json, read_price_model
from meterplane.kernel.errors import CallerError


def entries_of(version_id: UUID) -> list[Entry]:
    """The entries of a version, draft or not."""
    rows = PriceEntry.objects.filter(version_id=version_id).order_by("position")
    return [
        Entry(
            id=row.id,
            meter=row.meter,
            match=match_of(row.match),
            price_model=read_price_model(row.price_model),
            display_name=row.display_name,
        )
        for row in rows
    ]


def store_entries(version_id: UUID, entries: Iterable[Entry]) -> None:
    """Put entries into a draft. PostgreSQL refuses any other version."""
    PriceEntry.objects.bulk_create(
        PriceEntry(
            id=entry.id,
            version_id=version_id,
            position=position,
            meter=entry.meter,
            match=dict(entry.match),
            price_model=price_model_to_json(entry.price_model),
            display_name=entry.display_name,
        )
        for position, entry in enumerate(entries, start=1)
    )


def put_entry(version_id: UUID, entry: Entry, instead_of: UUID | None = None) -> UUID:
    """Add an entry to a draft, at its end or in the place of another one; the id of its row.

    Raises `CallerError` `version_missing`, `version_not_draft`, `entry_missing`, or `entry_twice`
    where another entry of the draft prices just that.
    """
    with transaction.atomic():
        version = PriceBookVersion.objects.select_for_update().filter(id=version_id).first()
        if version is None:
            raise CallerError("version_missing", "There is no such price-book version.", status=404)
        if version.status != PriceBookVersion.Status.DRAFT:
            message = f"Version {version.number} is {version.status}: only a draft changes."
            raise CallerError("version_not_draft", message, status=409)
        rows = PriceEntry.objects.filter(version=version)
        alike = rows.filter(meter=entry.meter, match=dict(entry.match))
        same = (alike.exclude(id=instead_of) if instead_of else alike).first()
        if same is not None:
            message = f"{same.display_name!r} prices {entry} already: change that entry."
            raise CallerError("entry_twice", message, status=409, field="meter")
        row = rows.filter(id=instead_of).first() if instead_of else PriceEntry(version=version)
        if row is None:
            message = "This entry is not in the draft any more."
            raise CallerError("entry_missing", message, status=404)
        if not instead_of:
            row.position = (rows.aggregate(last=Max("position"))["last"] or 0) + 1
        row.meter, row.match = entry.meter, dict(entry.match)
        row.price_model = price_model_to_json(entry.price_model)
        row.display_name = entry.display_name
        row.save()
    return row.id
