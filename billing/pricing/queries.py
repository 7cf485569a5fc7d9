"""Reads of prices. Needs no tenant's door: price books are the same for everybody.

What was published never changes, so the versions read last are kept by the process.
"""

from datetime import datetime
from functools import lru_cache
from typing import NamedTuple, get_args
from uuid import UUID

from django.db.models import Q

from billing.pricing.book import Meter, ModelPrices, PublishedBook
from billing.pricing.entry_rows import entries_of
from billing.pricing.models import Price, PriceBookVersion
from meterplane.contracts.usage import ServiceTier
from meterplane.kernel.invariant import ensure
from meterplane.metering.price_port import UnitPrices

DEFAULT_BOOK = "standard"
VERSIONS_KEPT = 64  # of 1,000 models with six entries each about 6 MB: 400 MB if all were so large

__all__ = [
    "DEFAULT_BOOK",
    "Applying",
    "ModelPrices",
    "PublishedBook",
    "prices_of",
    "published_version",
    "timeline_of",
    "unit_prices",
    "unit_prices_stored",
]


class Applying(NamedTuple):
    """A version of a book, and the instant it applies from."""

    effective_at: datetime
    version_id: UUID
    published_at: datetime


def published_version(at: datetime, book: str = DEFAULT_BOOK) -> PublishedBook | None:
    """The version of `book` that applies at instant `at`; None before its first one."""
    version_id = (
        PriceBookVersion.objects.exclude(status=PriceBookVersion.Status.DRAFT)
        .filter(book__name=book, effective_at__lte=at)
        .filter(Q(superseded_at__isnull=True) | Q(superseded_at__gt=at))
        .values_list("id", flat=True)
        .first()
    )
    return prices_of(version_id) if version_id else None


def timeline_of(book: str) -> list[Applying]:
    """The versions of `book`, the first one first; each applies until the next one's instant."""
    rows = (
        PriceBookVersion.objects.exclude(status=PriceBookVersion.Status.DRAFT)
        .filter(book__name=book)
        .order_by("effective_at")
        .values_list("effective_at", "id", "published_at")
    )
    return [
        Applying(effective_at, version_id, published_at)
        for effective_at, version_id, published_at in rows
        if effective_at and published_at
    ]


def prices_of(version_id: UUID, published_at: datetime | None = None) -> PublishedBook | None:
    """A version's prices by its id, published or superseded; None if there is no such version.

    A draft counts as missing: nothing can have been used at prices nobody published. Who knows when
    it was published says so, and hardly ever waits for PostgreSQL.
    """
    published_at = published_at or (
        PriceBookVersion.objects.exclude(status=PriceBookVersion.Status.DRAFT)
        .filter(id=version_id)
        .values_list("published_at", flat=True)
        .first()
    )
    return None if published_at is None else _published(version_id, published_at)


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


@lru_cache(maxsize=VERSIONS_KEPT)
def _published(version_id: UUID, published_at: datetime) -> PublishedBook:
    """Kept by its instant too: a publication that was rolled back may be made again, and differ."""
    version = PriceBookVersion.objects.select_related("book").get(
        id=version_id, published_at=published_at
    )
    return PublishedBook(
        version_id=version.id,
        currency=version.book.currency,
        prices=unit_prices_stored(version),
        entries=tuple(entries_of(version.id)),
        book=version.book.name,
    )


def unit_prices_stored(version: PriceBookVersion) -> dict[str, ModelPrices]:
    """The unit prices of a version, by model; also of a draft."""
    by_model: dict[str, dict[str, Price]] = {}
    for price in version.prices.order_by("model", "meter"):
        by_model.setdefault(price.model, {})[price.meter] = price
    return {model: _model_prices(model, meters) for model, meters in by_model.items()}


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
