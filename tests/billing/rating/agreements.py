"""Rating with entries and contracts, written as text so that a case can be checked by hand."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from billing.pricing.book import PublishedBook
from billing.pricing.contract import Contract, Terms
from billing.pricing.entry import Entry, match_of
from billing.pricing.price_model import read_price_model
from billing.rating.rate import Account, Billed, Period, Quantity, RatedPeriod, rate
from meterplane.kernel.decimals import text_to_decimal
from tests.billing.rating.cases import version

GRADUATED = {
    "type": "graduated",
    "tiers": [
        {"up_to": "1000", "unit_amount": "0.01"},
        {"up_to": None, "unit_amount": "0.005"},
    ],
}
VOLUME = GRADUATED | {"type": "volume"}


def utc(text: str) -> datetime:
    """`10-03` of 2026, midnight."""
    month, day = text.split("-")
    return datetime(2026, int(month), int(day), tzinfo=UTC)


def period(text: str, *, late: bool = False) -> Period:
    """`10-01 11-01`."""
    starts, ends = text.split()
    return Period(utc(starts), utc(ends), late)


def entry(
    number: int, meter: str, match: str, model: Mapping[str, Any] | str, **more: Any
) -> Entry:
    """`requests`, `model=a service_tier=batch`, a price model or a plain unit amount."""
    told = {"type": "unit", "unit_amount": model} if isinstance(model, str) else dict(model)
    pairs = dict(pair.split("=") for pair in match.split())
    return Entry(
        UUID(int=1000 + number),
        meter,
        match_of(pairs),
        read_price_model(told),
        f"e{number}",
        **more,
    )


def book(
    number: int, *entries: Entry, currency: str = "USD", free: Sequence[str] = ()
) -> dict[UUID, PublishedBook]:
    """A version of these entries; meters named in `free` have price zero for everything."""
    zero = [entry(900 + n, meter, "", "0") for n, meter in enumerate(free)]
    return {version(number): PublishedBook(version(number), currency, {}, (*entries, *zero), "b")}


def used(table: str, within: Period, meter: str = "requests", **more: Any) -> list[Quantity]:
    """`1 a 120` per line: version, model, units; `1 a 120 batch` of that tier."""
    found = []
    for line in table.strip().splitlines():
        number, model, units, *tier = line.split()
        found.append(
            Quantity(
                within,
                model,
                meter,
                version(int(number)),
                int(units),
                *(tier or ["standard"]),
                **more,
            )
        )
    return found


def contract(number: int = 1, starts: str = "10-01", ends: str = "", **terms: Any) -> Contract:
    """Terms by their names; `own` are its entries."""
    own = tuple(terms.pop("own", ()))
    if "discount_percent" in terms:
        terms["discount_percent"] = text_to_decimal(terms["discount_percent"])
    terms = {"book": "b", "currency": "USD", **terms}
    return Contract(
        UUID(int=number),
        number,
        Terms(starts_at=utc(starts), ends_at=utc(ends) if ends else None, entries=own, **terms),
        utc("09-01"),
        "a test",
    )


def billed(rated: RatedPeriod) -> tuple[Billed, ...]:
    """What an invoice of these lines says from then on."""
    return tuple(
        Billed(
            period=Period(line.period.starts_at, line.period.ends_at, True),
            kind=line.kind,
            amount_minor=line.amount_minor,
            quantity=line.quantity,
            model=line.model,
            meter=line.meter,
            service_tier=line.service_tier,
            price_version_id=line.price_version_id,
            entry_id=line.entry_id,
            contract_id=line.contract_id,
            unit_price_pico=line.unit_price_pico,
            display_name=line.display_name,
        )
        for line in rated.lines
    )


def bill(
    quantities: Sequence[Quantity],
    prices: Mapping[UUID, PublishedBook],
    *periods: Period,
    invoices: Sequence[RatedPeriod] = (),
    contracts: Sequence[Contract] = (),
    currency: str = "USD",
) -> RatedPeriod:
    """The invoice of the last period; those before are closed, and `invoices` is what they said."""
    facts = tuple(fact for each in invoices for fact in billed(each))
    held = {each.id: each for each in contracts}
    return rate(quantities, prices, currency, Account(tuple(periods), facts, held))


def told(rated: RatedPeriod) -> str:
    """`2026-10 usage e1 1500 1250` per line: month, kind, name, quantity, cents."""
    return "\n".join(
        " ".join(
            [
                f"{line.period.starts_at:%m-%d}{' late' if line.period.is_late else ''}",
                line.kind,
                line.display_name.split(",")[0].replace(" ", "_") or line.model,
                format(Decimal(line.quantity), "f"),
                str(line.amount_minor),
            ]
        )
        for line in rated.lines
    )
