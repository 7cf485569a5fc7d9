"""Reads of prices. Needs no tenant's door: price books are the same for everybody."""

from datetime import datetime
from uuid import UUID

from django.db.models import Q

from billing.pricing.book import ModelPrices, PublishedBook
from billing.pricing.models import Price, PriceBookVersion
from meterplane.kernel.invariant import ensure

DEFAULT_BOOK = "standard"

__all__ = ["DEFAULT_BOOK", "ModelPrices", "PublishedBook", "prices_of", "published_version"]


def published_version(at: datetime, book: str = DEFAULT_BOOK) -> PublishedBook | None:
    """The version of `book` that applies at instant `at`; None before its first one."""
    version = (
        PriceBookVersion.objects.exclude(status=PriceBookVersion.Status.DRAFT)
        .filter(book__name=book, effective_at__lte=at)
        .filter(Q(superseded_at__isnull=True) | Q(superseded_at__gt=at))
        .select_related("book")
        .first()
    )
    return _as_book(version) if version else None


def prices_of(version_id: UUID) -> PublishedBook | None:
    """A version's prices by its id, published or superseded; None if there is no such version.

    A draft counts as missing: nothing can have been used at prices nobody published.
    """
    version = (
        PriceBookVersion.objects.exclude(status=PriceBookVersion.Status.DRAFT)
        .filter(id=version_id)
        .select_related("book")
        .first()
    )
    return _as_book(version) if version else None


def _as_book(version: PriceBookVersion) -> PublishedBook:
    by_model: dict[str, dict[str, int]] = {}
    for price in version.prices.order_by("model", "meter"):
        by_model.setdefault(price.model, {})[price.meter] = price.unit_price_pico
    prices = {model: _model_prices(model, meters) for model, meters in by_model.items()}
    return PublishedBook(version.id, version.book.currency, prices)


def _model_prices(model: str, meters: dict[str, int]) -> ModelPrices:
    ensure(len(meters) == len(Price.Meter), f"{model} was published with every meter priced")
    return ModelPrices(
        input_token_pico=meters[Price.Meter.INPUT_TOKENS],
        output_token_pico=meters[Price.Meter.OUTPUT_TOKENS],
        request_pico=meters[Price.Meter.REQUESTS],
    )
