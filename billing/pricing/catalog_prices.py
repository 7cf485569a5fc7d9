"""Publish the prices written in a catalog file as a version of the standard book.

Idempotent: a file whose prices equal the version that applies now publishes nothing.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

import msgspec
from django.db import connection, transaction

from billing.pricing.book import ModelPrices
from billing.pricing.publish import create_draft, publish
from billing.pricing.queries import DEFAULT_BOOK, published_version
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import PICO, divide_half_away, text_to_pico


class _Prices(msgspec.Struct, frozen=True):
    """Decimal strings per unit. All three are required: a forgotten price is not zero.

    `batch_multiplier` is what the Batch API pays of them (`"0.5"`: half); without it the model is
    not offered there.
    """

    input_token: str
    output_token: str
    request: str
    batch_multiplier: str | None = None


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
        published = publish(draft.id, confirm=["gap"])  # the file says what is sold
    return CatalogPrices(published.version_id, is_new=True)


def read_catalog_prices(path: Path) -> dict[str, ModelPrices]:
    """Prices by model name: a JSON list of entries, or `{"models": [...]}`."""
    try:
        document = msgspec.json.decode(path.read_bytes())
        models = document["models"] if isinstance(document, dict) else document
        entries = msgspec.convert(models, list[_Entry])
        return {entry.name: _as_pico(entry) for entry in entries}
    except (OSError, KeyError, ValueError) as problem:  # msgspec's errors are ValueErrors
        raise CallerError("catalog_prices_invalid", f"{path}: {problem}") from None


def _as_pico(entry: _Entry) -> ModelPrices:
    prices = entry.prices
    standard = ModelPrices(
        input_token_pico=text_to_pico(prices.input_token),
        output_token_pico=text_to_pico(prices.output_token),
        request_pico=text_to_pico(prices.request),
    )
    if prices.batch_multiplier is None:
        return standard
    multiplier_pico = text_to_pico(prices.batch_multiplier)
    if not 0 < multiplier_pico <= PICO:
        raise ValueError(
            f"{entry.name}: batch_multiplier {prices.batch_multiplier!r} is not above 0 and at"
            " most 1; leave it out to keep the model out of batches"
        )
    return replace(
        standard,
        batch_input_token_pico=_multiplied(standard.input_token_pico, multiplier_pico),
        batch_output_token_pico=_multiplied(standard.output_token_pico, multiplier_pico),
        batch_request_pico=_multiplied(standard.request_pico, multiplier_pico),
    )


def _multiplied(price_pico: int, multiplier_pico: int) -> int:
    """Exact, then rounded once: a batch price in pico, halves away from zero."""
    return divide_half_away(price_pico * multiplier_pico, PICO)
