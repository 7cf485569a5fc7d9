"""Rating: quantities times prices and a contract, as one pure function.

Guarantees: the result is a function of the *sums* of quantities, of the prices and contracts, and
of what was billed before. The order of the inputs, how they were batched or split, and empty inputs
cannot change it; the same inputs give the same lines and the same `content_hash`. Reckoning is
exact; each line is rounded once, halves away from zero, to the currency's minor unit; the total is
the sum of the rounded lines, so an invoice always adds up.

Does not know where quantities come from, who owes them, or where invoices are kept.

A plain unit price has a line for each model (`plain`), any other entry one for all it matched in a
calendar month (`tiered`), and a contract adds lines to each of its months (`agreed`). A meter whose
unit price is zero owes nothing and gets no line; its quantity still enters the hash, unless it came
late. A quantity without a price is never rated as zero: it is refused, and so is usage of a service
tier that its version does not offer for the model.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from billing.pricing.book import PublishedBook
from billing.rating.agreed import AgreedKey, agreed_lines
from billing.rating.fingerprint import fingerprint, fingerprint_of_plain
from billing.rating.plain import PlainKey, PlainSum, plain_lines
from billing.rating.resolve import Resolver
from billing.rating.tiered import TieredKey, TieredSum, tiered_lines
from billing.rating.values import (
    METERS,
    TIERS,
    Account,
    Billed,
    Period,
    Quantity,
    RatedLine,
    RatedPeriod,
    UsageCannotBeRated,
    month_after,
    month_of,
)
from meterplane.kernel.decimals import EXACT
from meterplane.kernel.money import minor_digits

__all__ = [
    "METERS",
    "TIERS",
    "Account",
    "Billed",
    "Period",
    "Quantity",
    "RatedLine",
    "RatedPeriod",
    "UsageCannotBeRated",
    "rate",
]

_METER_INDEX = {meter: n for n, meter in enumerate(METERS)}
_TIER_INDEX = {tier: n for n, tier in enumerate(TIERS)}
_USAGE = ("usage", "adjustment")


def rate(
    quantities: Iterable[Quantity],
    prices: Mapping[UUID, PublishedBook],
    currency: str,
    account: Account | None = None,
) -> RatedPeriod:
    """Rate `quantities` at the prices of the versions they are pinned to, and the contracts.

    With an `account`, quantities are everything that is known of its periods, and what it billed
    for the closed ones is taken off. Without one, all of them are owed.
    Raises `UsageCannotBeRated` for a version or price that is missing, a version in another
    currency than `currency`, or more billed than used; `UnknownCurrency` for a currency whose minor
    unit is not known.
    """
    minor_digits(currency)
    billed = None if account is None else _plain_facts(account.billed)
    account = account or Account(())
    sums = _Sums(quantities, Resolver(prices, account.contracts, currency))
    _refuse_vanished(sums.used, account)
    plain = plain_lines(sums.plain, billed, currency)
    periods, final = _months(account.periods or sums.periods)
    of_tiers = [each for each in account.billed if _is_tiered(each)]
    tiered = tiered_lines(sums.tiered, _by_month(of_tiers), periods, final, currency)
    shown = [line for line in plain if line.unit_price_pico]
    agreed: list[RatedLine] = []
    if account.contracts:
        agreed = agreed_lines(
            account.contracts,
            _usage_minor([*shown, *tiered, *account.billed]),
            _by_month(each for each in account.billed if each.kind not in _USAGE),
            periods,
            account.periods[-1].ends_at,
            currency,
        )
    lines = sorted([*shown, *tiered, *agreed], key=_place)
    total_minor = sum(line.amount_minor for line in lines)
    is_plain = not (sums.tiered or tiered or account.contracts)
    if is_plain and all(line.kind == "usage" for line in plain):
        content_hash = fingerprint_of_plain(currency, plain, total_minor)
    else:
        content_hash = fingerprint(
            currency, plain, [*tiered, *agreed], sums.tiered, account.billed,
            account.contracts.values(), total_minor,
        )  # fmt: skip
    return RatedPeriod(currency, tuple(lines), total_minor, content_hash)


class _Sums:
    """Quantities added up by everything that tells them apart, then by the price they have."""

    def __init__(self, quantities: Iterable[Quantity], resolver: Resolver) -> None:
        self._interned: dict[Period, Period] = {}
        self._periods: dict[int, Period] = {}
        by_kind = self._added(quantities)
        self.periods = tuple(self._interned)
        self.used: dict[tuple[datetime, str], int | Decimal] = defaultdict(int)
        self.plain: dict[PlainKey, PlainSum] = {}
        self.tiered: dict[TieredKey, TieredSum] = {}
        for quantity, units in by_kind:
            month = (month_of(quantity.period.starts_at), quantity.meter)
            self.used[month] = _plus(self.used[month], units)
            self._price(quantity, units, resolver)

    def _added(self, quantities: Iterable[Quantity]) -> list[tuple[Quantity, int | Decimal]]:
        sums: dict[tuple[object, ...], int | Decimal] = {}
        first: dict[tuple[object, ...], Quantity] = {}
        for each in quantities:
            key = (
                id(self._period(each.period)), each.model, each.meter, each.price_version_id,
                each.service_tier, each.contract_id, each.dimensions,
            )  # fmt: skip
            if key in sums:
                sums[key] = _plus(sums[key], each.units)
            else:
                sums[key], first[key] = each.units, each
        return [(first[key], units) for key, units in sums.items() if units]

    def _period(self, period: Period) -> Period:
        """One object for equal periods: hashing instants for each quantity would be dear."""
        found = self._periods.get(id(period))
        if found is None:
            found = self._interned.setdefault(period, period)
            self._periods[id(period)] = found
        return found

    def _price(self, quantity: Quantity, units: int | Decimal, resolver: Resolver) -> None:
        entry, unit_price_pico = resolver.of(quantity)
        if units < 0:
            raise UsageCannotBeRated(
                f"{units} {quantity.service_tier} {quantity.meter} of {quantity.model} at price"
                f" version {quantity.price_version_id}: more was invoiced than was used"
            )
        own = entry is not None and entry.contract_id is not None
        if entry is None or unit_price_pico is not None:
            key = _plain_key(quantity, None if entry is None else entry.id)
            before = self.plain.get(key)
            name, served = ("", ()) if entry is None else (entry.display_name, entry.served)
            total = int(units) + (before.units if before is not None else 0)
            self.plain[key] = PlainSum(total, unit_price_pico or 0, name, served)
            return
        version_id = None if own else quantity.price_version_id
        place = TieredKey(
            month_of(quantity.period.starts_at), version_id, entry.id, quantity.contract_id
        )
        used = self.tiered.setdefault(place, TieredSum(entry))
        part = (quantity.model, quantity.service_tier)
        used.parts[part] = _plus(used.parts[part], units)


def _plain_key(quantity: Quantity, entry_id: UUID | None) -> PlainKey:
    period = quantity.period
    return PlainKey(
        period.is_late,
        period.starts_at,
        period.ends_at,
        quantity.model,
        _TIER_INDEX[quantity.service_tier],
        _METER_INDEX[next(each for each in METERS if each == quantity.meter)],
        quantity.price_version_id,
        entry_id,
        quantity.contract_id,
    )


def _refuse_vanished(used: Mapping[tuple[datetime, str], int | Decimal], account: Account) -> None:
    """What requests used never becomes less; it is our reading of it that would be wrong."""
    invoiced: dict[tuple[datetime, str], int | Decimal] = defaultdict(int)
    for each in account.billed:
        if each.meter in METERS:
            key = (month_of(each.period.starts_at), each.meter)
            invoiced[key] = _plus(invoiced[key], each.quantity)
    for (month, meter), units in invoiced.items():
        now = used.get((month, meter), 0)
        if now < units:
            raise UsageCannotBeRated(
                f"{now} {meter} in the month of {month:%Y-%m}, and {units} were billed:"
                " more was invoiced than was used"
            )


def _months(periods: Iterable[Period]) -> tuple[dict[datetime, Period], frozenset[datetime]]:
    """Which period a line of each month names, and the months that are over by the end of all."""
    by_month: dict[datetime, list[Period]] = defaultdict(list)
    for period in periods:
        by_month[month_of(period.starts_at)].append(period)
    named = {}
    until = None
    for month, within in by_month.items():
        running = [each for each in within if not each.is_late]
        parts = running or within
        named[month] = Period(
            min(each.starts_at for each in parts),
            max(each.ends_at for each in parts),
            is_late=not running,
        )
        until = max([*([until] if until else []), *(each.ends_at for each in within)])
    final = frozenset(month for month in named if until is not None and month_after(month) <= until)
    return named, final


def _is_tiered(each: Billed) -> bool:
    return each.kind in _USAGE and each.unit_price_pico is None


def _plain_facts(billed: Iterable[Billed]) -> list[Billed]:
    return _summed(each for each in billed if each.kind in _USAGE and not _is_tiered(each))


def _by_month(billed: Iterable[Billed]) -> list[Billed]:
    """One fact for each calendar month, named by its first instant."""
    months = []
    for each in billed:
        month = month_of(each.period.starts_at)
        kind = "usage" if each.kind in _USAGE else each.kind
        whole = Period(month, month_after(month), is_late=True)
        months.append(replace(each, period=whole, kind=kind, model="", service_tier="standard"))
    return _summed(months)


def _summed(billed: Iterable[Billed]) -> list[Billed]:
    facts: dict[tuple[object, ...], Billed] = {}
    for each in billed:
        kind = "usage" if each.kind in _USAGE else each.kind
        key = (
            each.period.starts_at, each.period.ends_at, kind, each.model, each.meter,
            each.service_tier, each.price_version_id, each.entry_id, each.contract_id,
        )  # fmt: skip
        before = facts.get(key)
        facts[key] = (
            each
            if before is None
            else replace(
                before,
                quantity=_plus(before.quantity, each.quantity),
                amount_minor=before.amount_minor + each.amount_minor,
            )
        )
    return list(facts.values())


def _usage_minor(lines: Iterable[RatedLine | Billed]) -> dict[AgreedKey, int]:
    """What the usage of each contract owes in each month, by its lines of now and before."""
    owed: dict[AgreedKey, int] = defaultdict(int)
    for each in lines:
        if each.contract_id is not None and each.kind in _USAGE:
            key = AgreedKey(month_of(each.period.starts_at), each.contract_id)
            owed[key] += each.amount_minor
    return owed


def _place(line: RatedLine) -> tuple[object, ...]:
    """Late periods last, then time; plain lines, entries, and what the contract says."""
    period = line.period
    rank = 2 if line.kind not in _USAGE else int(line.unit_price_pico is None)
    return period.is_late, period.starts_at, period.ends_at, rank


def _plus(one: int | Decimal, other: int | Decimal) -> int | Decimal:
    if isinstance(one, int) and isinstance(other, int):
        return one + other
    return EXACT.add(Decimal(one), Decimal(other))
