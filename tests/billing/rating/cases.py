"""Rating written as text tables, so that a case can be read and checked by hand."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from billing.pricing.book import ModelPrices, PublishedBook
from billing.rating.rate import METERS, Period, Quantity, RatedPeriod
from meterplane.contracts.usage import ServiceTier
from meterplane.kernel.money import text_to_pico

OCTOBER = Period(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
LATE_SEPTEMBER = Period(datetime(2026, 9, 1, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC), True)


def version(number: int) -> UUID:
    """The id of price-book version `number` in these cases."""
    return UUID(int=number)


def books(table: str, currency: str = "USD") -> dict[UUID, PublishedBook]:
    """`1 tiny-lm 0.0000002 0.0000006 0.0001` per line: version, model, in, out, request.

    Three more are the same of a batch.
    """
    prices: dict[UUID, dict[str, ModelPrices]] = {}
    for line in table.strip().splitlines():
        number, model, *units = line.split()
        prices.setdefault(version(int(number)), {})[model] = ModelPrices(*map(text_to_pico, units))
    return {
        version_id: PublishedBook(version_id, currency, models)
        for version_id, models in prices.items()
    }


def usage(table: str, period: Period = OCTOBER, tier: ServiceTier = "standard") -> list[Quantity]:
    """`1 tiny-lm 1204 88 3` per line: version, model, input, output tokens, requests."""
    quantities = []
    for line in table.strip().splitlines():
        number, model, *units = line.split()
        quantities += [
            Quantity(period, model, meter, version(int(number)), int(count), tier)
            for meter, count in zip(METERS, units, strict=True)
        ]
    return quantities


def as_table(rated: RatedPeriod) -> str:
    """The lines as the expected tables are written."""
    return "\n".join(
        " ".join(
            [
                f"{line.period.starts_at:%Y-%m}{' late' if line.period.is_late else ''}",
                str(line.price_version_id.int),
                line.model,
                line.meter,
                str(line.quantity),
                str(line.amount_minor),
            ]
        )
        for line in rated.lines
    )


def table(text: str) -> str:
    """An expected table with its indentation removed."""
    return "\n".join(line.strip() for line in text.strip().splitlines())


def halves(quantities: Iterable[Quantity]) -> list[Quantity]:
    """Every quantity split in two parts that add up to it."""
    parts = []
    for each in quantities:
        half = each.units // 2
        for units in (half, each.units - half):
            parts.append(replace(each, units=units))
    return parts
