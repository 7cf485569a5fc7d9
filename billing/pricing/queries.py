"""Reads of prices. Needs no tenant's door: price books are the same for everybody."""

from datetime import datetime
from typing import get_args
from uuid import UUID

from django.db.models import Q

from billing.pricing.book import Meter, ModelPrices, PublishedBook
from billing.pricing.models import Price, PriceBookVersion
from meterplane.contracts.usage import ServiceTier
from meterplane.kernel.invariant import ensure
from meterplane.metering.price_port import UnitPrices

DEFAULT_BOOK = "standard"

__all__ = [
    "DEFAULT_BOOK",
    "ModelPrices",
    "PublishedBook",
    "prices_of",
    "published_version",
    "unit_prices",
]


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


def unit_prices(version_id: UUID) -> dict[tuple[str, ServiceTier], UnitPrices]:
    """A version's prices by model and tier, for exports; empty if nobody published it."""
    book = prices_of(version_id)
    tiers: tuple[ServiceTier, ...] = get_args(ServiceTier)
    found: dict[tuple[str, ServiceTier], UnitPrices] = {}
    for model, price in (book.prices if book else {}).items():
        for tier in tiers:
            meters = [price.of(meter, tier) for meter in get_args(Meter)]
            known = [pico for pico in meters if pico is not None]
            if len(known) == len(meters):
                found[model, tier] = UnitPrices(*known)
    return found


def _as_book(version: PriceBookVersion) -> PublishedBook:
    by_model: dict[str, dict[str, Price]] = {}
    for price in version.prices.order_by("model", "meter"):
        by_model.setdefault(price.model, {})[price.meter] = price
    prices = {model: _model_prices(model, meters) for model, meters in by_model.items()}
    return PublishedBook(version.id, version.book.currency, prices)


def _model_prices(model: str, meters: dict[str, Price]) -> ModelPrices:
    ensure(len(meters) == len(Price.Meter), f"{model} was published with every meter priced")
    tokens_in, tokens_out = meters[Price.Meter.INPUT_TOKENS], meters[Price.Meter.OUTPUT_TOKENS]
    requests = meters[Price.Meter.REQUESTS]
    prices = ModelPrices(
        input_token_pico=tokens_in.unit_price_pico,
        output_token_pico=tokens_out.unit_price_pico,
        request_pico=requests.unit_price_pico,
        batch_input_token_pico=tokens_in.batch_unit_price_pico,
        batch_output_token_pico=tokens_out.batch_unit_price_pico,
        batch_request_pico=requests.batch_unit_price_pico,
    )
    ensure(prices.batch_is_whole, f"{model} was published with all its batch prices or none")
    return prices
