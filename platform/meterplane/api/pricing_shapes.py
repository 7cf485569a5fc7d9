"""The JSON of price books, contracts and rated lines. Decimals are text, never numbers."""

from typing import Any

from billing.invoicing.queries import LineView
from billing.pricing.book import METERS, ModelPrices
from billing.pricing.entry_json import entry_to_json
from billing.pricing.entry_rows import entries_of
from billing.pricing.models import PriceBookVersion
from billing.pricing.queries import unit_prices_stored
from billing.rating.preview import Delta
from meterplane.api.event_shapes import instant
from meterplane.kernel.decimals import decimal_to_text
from meterplane.kernel.money import minor_to_text, pico_to_text

TEXT: dict[str, Any] = {"type": "string"}
INSTANT = TEXT | {"format": "date-time"}
INSTANT_OR_NULL: dict[str, Any] = {"type": ["string", "null"], "format": "date-time"}
TEXT_OR_NULL: dict[str, Any] = {"type": ["string", "null"]}
OBJECT: dict[str, Any] = {"type": "object", "additionalProperties": True}
ENTRY: dict[str, Any] = {
    "type": "object",
    "required": ["meter", "price_model"],
    "properties": {
        "meter": TEXT | {"description": "input_tokens, output_tokens, requests, or a meter's slug"},
        "match": {
            "type": "object",
            "additionalProperties": TEXT,
            "description": "Dimensions that usage of the meter carries; empty: all of it.",
        },
        "price_model": OBJECT,
        "display_name": TEXT,
    },
}
DRAFT_IN: dict[str, Any] = {
    "type": "object",
    "required": ["entries"],
    "properties": {
        "currency": TEXT | {"description": "of a new book; a book keeps its own"},
        "entries": {"type": "array", "items": ENTRY},
    },
}
PUBLISH_IN: dict[str, Any] = {
    "type": "object",
    "properties": {
        "effective_at": INSTANT,
        "confirm": {"type": "array", "items": {"enum": ["gap", "below_cost"]}},
    },
}
VERSION_OUT: dict[str, Any] = {
    "type": "object",
    "description": "A version. `unit_prices` are what a request is held and shown at; `findings` of"
    " a draft are what publishing would complain of.",
    "properties": {
        "id": TEXT,
        "book": TEXT,
        "currency": TEXT,
        "number": {"type": "integer"},
        "status": {"enum": ["draft", "published", "superseded"]},
        "effective_at": INSTANT_OR_NULL,
        "published_at": INSTANT_OR_NULL,
        "superseded_at": INSTANT_OR_NULL,
        "entries": {"type": "array", "items": ENTRY},
        "unit_prices": {"type": "array", "items": OBJECT},
        "findings": {"type": "array", "items": OBJECT},
    },
}
DELTAS_OUT: dict[str, Any] = {
    "type": "object",
    "description": "Who would pay how much more for the month's usage, the worst first.",
    "properties": {
        "month": TEXT_OR_NULL,
        "tenants": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "organisation": TEXT,
                    "currency": TEXT,
                    "old": TEXT_OR_NULL,
                    "new": TEXT_OR_NULL,
                    "difference": TEXT_OR_NULL,
                    "problem": TEXT,
                },
            },
        },
    },
}
CONTRACT_IN: dict[str, Any] = {
    "type": "object",
    "description": "Amounts are decimal text of the currency, each for a calendar month.",
    "properties": {
        "note": TEXT,
        "book": TEXT,
        "currency": TEXT,
        "starts_at": INSTANT,
        "ends_at": INSTANT_OR_NULL,
        "pinned_version": TEXT_OR_NULL | {"description": "rated at instead of the book's newest"},
        "pinned_until": INSTANT_OR_NULL,
        "discount_percent": TEXT,
        "commitment": TEXT_OR_NULL,
        "minimum_spend": TEXT_OR_NULL,
        "maximum_spend": TEXT_OR_NULL,
        "entries": {"type": "array", "items": ENTRY},
    },
}
CONTRACT_OUT: dict[str, Any] = CONTRACT_IN | {
    "properties": CONTRACT_IN["properties"]
    | {
        "id": TEXT,
        "number": {"type": "integer"},
        "supersedes": TEXT_OR_NULL,
        "created_at": INSTANT,
        "created_by": TEXT,
        "events": {"type": "array", "items": OBJECT},
    },
}
END_IN: dict[str, Any] = {"type": "object", "properties": {"at": INSTANT}}
LINE_OUT: dict[str, Any] = {
    "type": "object",
    "description": "A line: a plain unit price has `unit_price`, an entry that is more"
    " `price_model` and `breakdown`, a discount and the like neither.",
    "properties": {
        "uid": TEXT,
        "kind": TEXT,
        "model": TEXT,
        "meter": TEXT,
        "service_tier": TEXT,
        "display_name": TEXT,
        "description": TEXT,
        "quantity": TEXT,
        "unit_price": TEXT_OR_NULL,
        "amount": TEXT,
        "price_version": TEXT_OR_NULL,
        "entry": TEXT_OR_NULL,
        "contract": TEXT_OR_NULL,
        "interim": TEXT_OR_NULL,
        "period_start": INSTANT,
        "period_end": INSTANT,
        "late": {"type": "boolean"},
        "price_model": {"type": ["object", "null"], "additionalProperties": True},
        "breakdown": {"type": ["object", "null"], "additionalProperties": True},
    },
}
TAX_OUT: dict[str, Any] = {
    "type": "object",
    "properties": dict.fromkeys(("name", "percentage", "mode", "taxable", "amount"), TEXT),
}
BILL_OUT: dict[str, Any] = {
    "type": "object",
    "description": "`used` and `credit` (below zero where credit pays) are the `subtotal`, and with"
    " `tax` on top of it the `total`; `tax_included` is in the prices.",
    "properties": {
        "id": TEXT_OR_NULL,
        "number": TEXT_OR_NULL,
        "status": TEXT,
        "currency": TEXT,
        "used": TEXT,
        "credit": TEXT,
        "subtotal": TEXT,
        "tax": TEXT,
        "tax_included": TEXT,
        "taxes": {"type": "array", "items": TAX_OUT},
        "tax_note": TEXT,
        "total": TEXT,
        "already_invoiced": TEXT,
        "period_start": INSTANT,
        "period_end": INSTANT,
        "content_hash": TEXT,
        "lines": {"type": "array", "items": LINE_OUT},
    },
}


def version_json(version: PriceBookVersion, *, whole: bool = True) -> dict[str, Any]:
    """A version; `whole` with its entries and unit prices."""
    told = {
        "id": str(version.id),
        "book": version.book.name,
        "currency": version.book.currency,
        "number": version.number,
        "status": version.status,
        "effective_at": instant(version.effective_at),
        "published_at": instant(version.published_at),
        "superseded_at": instant(version.superseded_at),
    }
    if not whole:
        return told
    prices = unit_prices_stored(version)
    return told | {
        "entries": [entry_to_json(entry) for entry in entries_of(version.id)],
        "unit_prices": [_unit_prices(model, each) for model, each in sorted(prices.items())],
    }


def deltas_json(month: str | None, deltas: list[Delta]) -> dict[str, Any]:
    """A preview."""

    def text(amount_minor: int | None, currency: str) -> str | None:
        return None if amount_minor is None else minor_to_text(amount_minor, currency)

    return {
        "month": month,
        "tenants": [
            {
                "organisation": each.tenant,
                "currency": each.currency,
                "old": text(each.old_minor, each.currency),
                "new": text(each.new_minor, each.currency),
                "difference": None if each.problem else text(each.difference_minor, each.currency),
                "problem": each.problem,
            }
            for each in deltas
        ],
    }


def line_json(line: LineView, currency: str) -> dict[str, Any]:
    """A line, invoiced or to be."""
    price = line.unit_price_pico
    quantity = line.quantity
    return {
        "uid": line.uid,
        "kind": line.kind,
        "model": line.model,
        "meter": line.meter,
        "service_tier": line.service_tier,
        "display_name": line.display_name,
        "description": line.description,
        "quantity": str(quantity) if isinstance(quantity, int) else decimal_to_text(quantity),
        "unit_price": None if price is None else pico_to_text(price),
        "amount": minor_to_text(line.amount_minor, currency),
        "price_version": None if line.price_version_id is None else str(line.price_version_id),
        "entry": None if line.entry_id is None else str(line.entry_id),
        "contract": None if line.contract_id is None else str(line.contract_id),
        "interim": None if line.interim_id is None else str(line.interim_id),
        "period_start": instant(line.period_start),
        "period_end": instant(line.period_end),
        "late": line.is_late,
        "price_model": line.price_model,
        "breakdown": line.breakdown,
    }


def _unit_prices(model: str, prices: ModelPrices) -> dict[str, Any]:
    return {
        "model": model,
        "standard": {meter: pico_to_text(prices.of(meter)) for meter in METERS},
        "batch": None
        if prices.of("requests", "batch") is None
        else {meter: pico_to_text(prices.of(meter, "batch") or 0) for meter in METERS},
    }
