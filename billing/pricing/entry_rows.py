"""Entries as rows of a version, in their order."""

from collections.abc import Iterable
from uuid import UUID

from billing.pricing.entry import Entry, match_of
from billing.pricing.models import PriceEntry
from billing.pricing.price_model import price_model_to_json, read_price_model


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
