"""Entries as JSON in their one form, and back from what was stored so."""

from typing import Any
from uuid import UUID

from billing.pricing.entry import Entry, match_of
from billing.pricing.price_model import price_model_to_json, read_price_model


def entry_to_json(entry: Entry) -> dict[str, object]:
    """The entry as it is shown, stored and hashed."""
    return {
        "id": str(entry.id),
        "meter": entry.meter,
        "match": dict(entry.match),
        "price_model": price_model_to_json(entry.price_model),
        "display_name": entry.display_name,
    }


def stored_entry(value: dict[str, Any], contract_id: UUID | None = None) -> Entry:
    """An entry that `entry_to_json` wrote; it was checked before it was stored."""
    return Entry(
        id=UUID(value["id"]),
        meter=value["meter"],
        match=match_of(value["match"]),
        price_model=read_price_model(value["price_model"]),
        display_name=value["display_name"],
        contract_id=contract_id,
    )
