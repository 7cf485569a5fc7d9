"""Draft and publish versions of a price book.

Guarantees: what was published never changes (a trigger holds it too); of each book one version
applies at any instant from its first one on; every model that is sold has a price for every meter,
and every usage one price. Publishing needs a lock on the book, so two operators publish one after
the other.

Entries are what usage is rated by. A draft of unit prices gets its entries as it is published; of a
draft of entries, publishing derives the unit prices that a request is held and shown at.

A request pins the version it was admitted with, so publishing never re-prices past usage. Does not
tell the gateways: whoever publishes recompiles policies afterwards.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from typing import get_args
from uuid import UUID

from django.db import transaction
from django.db.models import Count, Max

from billing.pricing.book import Meter, ModelPrices, PublishedBook
from billing.pricing.checks import Finding, findings, refuse_unconfirmed
from billing.pricing.derive import Offer, offer_of, unit_entries
from billing.pricing.entry import Entry
from billing.pricing.entry_rows import entries_of, store_entries
from billing.pricing.models import Price, PriceBook, PriceBookVersion
from billing.pricing.queries import prices_of, unit_prices_stored
from meterplane.catalog.models import Model
from meterplane.contracts.usage import ServiceTier
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import UnknownCurrency, minor_digits

# A book's first version applies from here on: history that is loaded later finds its prices.
THE_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_METERS: tuple[Meter, ...] = ("input_tokens", "output_tokens", "requests")


@dataclass(frozen=True, slots=True)
class Published:
    """The version that now is the book's newest."""

    version_id: UUID
    number: int
    effective_at: datetime


def create_draft(
    *,
    book: str,
    currency: str,
    prices: Mapping[str, ModelPrices] | None = None,
    entries: Sequence[Entry] = (),
) -> PriceBookVersion:
    """Add a draft version to `book`, making the book if it is new: of unit prices, or of entries.

    Raises `CallerError` `currency_unknown`, `currency_differs`, `price_negative`, `prices_empty`
    or `batch_prices_incomplete`.
    """
    _check(currency, prices or {}, entries)
    with transaction.atomic():
        owner, _ = PriceBook.objects.get_or_create(name=book, defaults={"currency": currency})
        owner = PriceBook.objects.select_for_update().get(id=owner.id)
        if owner.currency != currency:
            raise CallerError(
                "currency_differs",
                f"Book {book!r} is in {owner.currency}, not in {currency}.",
                field="currency",
            )
        newest = owner.versions.aggregate(newest=Max("number"))["newest"] or 0
        version = PriceBookVersion.objects.create(book=owner, number=newest + 1)
        _store_prices(version, prices or {})
        store_entries(version.id, entries)
    return version


def publish(
    version_id: UUID,
    *,
    effective_at: datetime | None = None,
    confirm: Collection[str] = (),
) -> Published:
    """Publish a draft, effective from `effective_at` (now), and supersede its predecessor.

    The first version of a book applies from the beginning of time unless told otherwise.
    `confirm` names the findings of `checks` that are meant. Raises `CallerError`
    `version_missing`, `version_not_draft`, `batch_prices_incomplete`, what the checks find, or
    `effective_too_early` when it would change which prices applied in the past.
    """
    with transaction.atomic():
        draft = _draft(version_id)
        current = _current(draft)
        entries, offer = _priced(draft, current)
        refuse_unconfirmed(_found(draft, current, entries, offer), confirm)
        now = clock.now()
        starts_at = effective_at or (now if current else THE_BEGINNING)
        if current:
            _supersede(current, starts_at, now)
        if draft.entries.exists():
            draft.prices.all().delete()
            _store_prices(draft, offer.prices)
        else:
            store_entries(draft.id, entries)
        draft.status = PriceBookVersion.Status.PUBLISHED
        draft.effective_at = starts_at
        draft.published_at = now
        draft.save(update_fields=["status", "effective_at", "published_at"])
    return Published(draft.id, draft.number, starts_at)


def check_draft(version_id: UUID) -> list[Finding]:
    """What publishing would complain of. Raises `CallerError` as `publish` does of no draft."""
    with transaction.atomic():
        draft = _draft(version_id)
        current = _current(draft)
        entries, offer = _priced(draft, current)
        return _found(draft, current, entries, offer)


def draft_as_book(version_id: UUID) -> PublishedBook:
    """A draft as it would be published. Raises `CallerError` as `publish` does of no draft."""
    with transaction.atomic():
        draft = _draft(version_id)
        entries, offer = _priced(draft, _current(draft))
        return PublishedBook(
            draft.id, draft.book.currency, offer.prices, tuple(entries), draft.book.name
        )


def _draft(version_id: UUID) -> PriceBookVersion:
    """The draft, with its book locked."""
    draft = PriceBookVersion.objects.filter(id=version_id).first()
    if draft is None:
        raise CallerError("version_missing", "There is no such price-book version.", status=404)
    PriceBook.objects.select_for_update().get(id=draft.book_id)
    draft = PriceBookVersion.objects.select_related("book").get(id=draft.id)
    if draft.status != PriceBookVersion.Status.DRAFT:
        raise CallerError(
            "version_not_draft", f"Version {draft.number} is {draft.status}.", status=409
        )
    _check_batch_prices(draft)
    return draft


def _current(draft: PriceBookVersion) -> PriceBookVersion | None:
    return PriceBookVersion.objects.filter(
        book_id=draft.book_id, status=PriceBookVersion.Status.PUBLISHED
    ).first()


def _priced(draft: PriceBookVersion, current: PriceBookVersion | None) -> tuple[list[Entry], Offer]:
    """The draft's entries, and what they offer: of models on offer, priced before or named."""
    entries = entries_of(draft.id)
    if not entries:
        prices = unit_prices_stored(draft)
        return [*unit_entries(prices)], Offer(prices)
    before = prices_of(current.id) if current else None
    return entries, offer_of(entries, [*_on_offer(), *(before.prices if before else ())])


def _found(
    draft: PriceBookVersion,
    current: PriceBookVersion | None,
    entries: list[Entry],
    offer: Offer,
) -> list[Finding]:
    return findings(
        entries,
        offer,
        currency=draft.book.currency,
        before=prices_of(current.id) if current else None,
        on_offer=_on_offer(),
    )


def _on_offer() -> list[str]:
    return list(Model.objects.filter(is_active=True).values_list("name", flat=True))


def _store_prices(version: PriceBookVersion, prices: Mapping[str, ModelPrices]) -> None:
    Price.objects.bulk_create(
        Price(
            version=version,
            model=model,
            meter=meter,
            unit_price_pico=price.of(meter),
            batch_unit_price_pico=price.of(meter, "batch"),
        )
        for model, price in sorted(prices.items())
        for meter in _METERS
    )


def _supersede(current: PriceBookVersion, starts_at: datetime, now: datetime) -> None:
    if starts_at < now or (current.effective_at is not None and starts_at <= current.effective_at):
        raise CallerError(
            "effective_too_early",
            f"Version {current.number} already applies at {starts_at:%Y-%m-%d %H:%M:%S} UTC. "
            "Choose a later instant.",
            status=409,
            field="effective_at",
        )
    current.status = PriceBookVersion.Status.SUPERSEDED
    current.superseded_at = starts_at
    current.save(update_fields=["status", "superseded_at"])


def _check(currency: str, prices: Mapping[str, ModelPrices], entries: Sequence[Entry]) -> None:
    try:
        minor_digits(currency)
    except UnknownCurrency as unknown:
        raise CallerError("currency_unknown", str(unknown), field="currency") from None
    if bool(prices) == bool(entries):
        raise CallerError(
            "prices_empty",
            "A version needs the price of at least one model: unit prices, or entries.",
            field="entries",
        )
    for model, price in prices.items():
        for meter, tier in product(_METERS, get_args(ServiceTier)):
            if (price.of(meter, tier) or 0) < 0:
                raise CallerError(
                    "price_negative", f"{model}: the price of {meter} is negative.", field="prices"
                )
        if not price.batch_is_whole:
            raise _batch_prices_incomplete(model)


def _check_batch_prices(draft: PriceBookVersion) -> None:
    """A draft's prices can be edited one by one; the trigger on publication checks again."""
    partial = (
        draft.prices.order_by("model")
        .values("model")
        .annotate(priced=Count("batch_unit_price_pico"))
        .exclude(priced__in=[0, len(_METERS)])
        .values_list("model", flat=True)
        .first()
    )
    if partial is not None:
        raise _batch_prices_incomplete(partial)


def _batch_prices_incomplete(model: str) -> CallerError:
    return CallerError(
        "batch_prices_incomplete",
        f"{model} has some batch prices only: state all three, or none to keep it out of batches.",
        field="prices",
    )
