"""Entries of decoded JSON, read strictly.

    {"meter": "input_tokens", "match": {"model": "tiny-lm"}, "price_model": {..},
     "display_name": "Chat, what you send"}

Guarantees: what is read has a known meter, dimensions that usage of the meter carries, and a
checked price model; every complaint names the path of the field. Needs the catalog's tables for
declared meters.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from billing.pricing.dimensions import by_token_kind, check_match, priced_meter
from billing.pricing.entry import Entry, match_in_words, match_of
from billing.pricing.exact_fields import FieldInvalid, Fields, read_list, read_text
from billing.pricing.marginal import highest_unit_price_pico
from billing.pricing.price_model import PriceModel, read_price_model
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7

ENTRIES_MAX = 5_000  # 800 models x 3 meters x 2 tiers, and a few
NAME_CHARS_MAX = 120
_ALLOWED = frozenset({"id", "meter", "match", "price_model", "display_name"})


def read_entries(
    value: object, at: datetime, *, path: str = "entries", contract_id: UUID | None = None
) -> list[Entry]:
    """Entries of decoded JSON. An `id` is ignored: what was read may be sent again as a draft."""
    items = read_list(value, path)
    if len(items) > ENTRIES_MAX:
        raise FieldInvalid(path, f"has more than {ENTRIES_MAX:,} entries")
    entries = [_entry(item, at, f"{path}[{n}]", contract_id) for n, item in enumerate(items)]
    first: dict[tuple[str, Any], int] = {}
    for n, entry in enumerate(entries):
        before = first.setdefault((entry.meter, entry.match), n)
        if before != n:
            raise CallerError(
                "entry_twice",
                f"{path}[{before}] and {path}[{n}] both price {entry}; keep one.",
                status=422,
                field=f"{path}[{n}]",
            )
    return entries


def _entry(item: object, at: datetime, path: str, contract_id: UUID | None) -> Entry:
    fields = Fields(item, path, _ALLOWED)
    slug, match = by_token_kind(
        fields.get("meter", read_text), fields.get_or("match", _match, {}), fields.path("match")
    )
    meter = priced_meter(slug, at, fields.path("meter"))
    check_match(meter, match, at, fields.path("match"))
    model = _price_model(fields)
    matched = match_of(match)
    name = fields.get_or("display_name", read_text, "") or _named(meter.name, match)
    if len(name) > NAME_CHARS_MAX:
        raise FieldInvalid(fields.path("display_name"), f"is longer than {NAME_CHARS_MAX} letters")
    return Entry(uuid7(), meter.slug, matched, model, name, contract_id)


def _match(value: object, path: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise FieldInvalid(path, 'must be an object such as {"model": "tiny-lm"}')
    return {name: read_text(each, f"{path}.{name}") for name, each in value.items()}


def _price_model(fields: Fields) -> PriceModel:
    model = fields.get("price_model", read_price_model)
    try:
        highest_unit_price_pico(model)
    except CallerError as wrong:
        path = fields.path("price_model")
        raise CallerError(wrong.code, wrong.message, status=wrong.status, field=path) from None
    return model


def _named(name: str, match: Mapping[str, str]) -> str:
    return f"{name}, {match_in_words(match_of(match))}"[:NAME_CHARS_MAX] if match else name
