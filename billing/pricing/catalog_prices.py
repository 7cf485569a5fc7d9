"""Publish the prices written in a catalog file as a version of the standard book.

Idempotent: a file whose prices equal the version that applies now publishes nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import msgspec
from django.db import connection, transaction

from billing.pricing.book import ModelPrices
from billing.pricing.publish import create_draft, publish
from billing.pricing.queries import DEFAULT_BOOK, published_version
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import text_to_pico


class _Prices(msgspec.Struct, frozen=True):
    """Decimal strings per unit. All three are required: a forgotten price is not zero."""

    input_token: str
    output_token: str
    request: str


class _Entry(msgspec.Struct, frozen=True):
    name: str
    prices: _Prices


@dataclass(frozen=True, slots=True)
class CatalogPrices:
    """The version that applies now, and whether this call published it."""

    version_id: UUID
    is_new: bool


def publish_catalog_prices(
    path: Path, *, currency: str = "USD", book: str = DEFAULT_BOOK
) -> CatalogPrices:
    """Publish the file's prices, effective at once, unless they already apply.

    Raises `CallerError` `catalog_prices_invalid` naming what is wrong in the file.
    """
    prices = read_catalog_prices(path)
    with transaction.atomic(), connection.cursor() as cursor:
        # Two starting stacks would both find the prices new, and publish them twice.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('pricing.catalog', 0))")
        current = published_version(clock.now(), book)
        if current and current.currency == currency and dict(current.prices) == prices:
            return CatalogPrices(current.version_id, is_new=False)
        draft = create_draft(book=book, currency=currency, prices=prices)
        published = publish(draft.id)
    return CatalogPrices(published.version_id, is_new=True)


def read_catalog_prices(path: Path) -> dict[str, ModelPrices]:
    """Prices by model name: a JSON list of entries, or `{"models": [...]}`."""
    try:
        document = msgspec.json.decode(path.read_bytes())
        models = document["models"] if isinstance(document, dict) else document
        entries = msgspec.convert(models, list[_Entry])
        return {entry.name: _as_pico(entry.prices) for entry in entries}
    except (OSError, KeyError, ValueError) as problem:  # msgspec's errors are ValueErrors
        raise CallerError("catalog_prices_invalid", f"{path}: {problem}") from None


def _as_pico(prices: _Prices) -> ModelPrices:
    return ModelPrices(
        input_token_pico=text_to_pico(prices.input_token),
        output_token_pico=text_to_pico(prices.output_token),
        request_pico=text_to_pico(prices.request),
    )
