"""What a year owes, reckoned again from the terms in words: integers and fractions alone.

Shares no code with the product, and is written for one customer: everything that was used and is
known is priced anew at every close. An invoice's lines are then the difference to what was owed at
the close before, whatever came late, whichever tier it moved.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from math import floor

# Dollars by version: of one token put in, by model; tiers as (up to, unit, flat); packages.
INPUT = {
    1: {"tiny-lm": Fraction("0.000002"), "minilm": Fraction("0.0000005")},
    2: {"tiny-lm": Fraction("0.0000018"), "minilm": Fraction("0.0000007")},
}
OUTPUT = {
    1: [(200_000, "0.000006", "0"), (600_000, "0.000004", "1.5"), (None, "0.000003", "0")],
    2: [(300_000, "0.0000055", "0.25"), (None, "0.0000035", "0.75")],
}
REQUESTS = {
    1: [(100, "0.01", "0"), (250, "0.008", "0"), (None, "0.005", "0.3")],
    2: [(150, "0.009", "0"), (None, "0.006", "0")],
}
PACKAGE = {1: (10, Fraction("0.07")), 2: (25, Fraction("0.15"))}
CONTRACT_OUTPUT = [(400_000, "0.000004", "0"), (None, "0.000002", "0")]


@dataclass(frozen=True)
class Agreed:
    """A contract: from, until; per cent off; cents a month."""

    starts: datetime
    ends: datetime
    discount: Fraction
    least: int = 0
    most: int | None = None
    own_output: bool = False


CONTRACTS = [
    Agreed(
        datetime(2024, 3, 11, tzinfo=UTC), datetime(2024, 9, 20, tzinfo=UTC),
        Fraction("12.5"), least=40_00, own_output=True,
    ),
    Agreed(
        datetime(2024, 9, 20, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC),
        Fraction("7.25"), least=30_00, most=90_00,
    ),
]  # fmt: skip


@dataclass(frozen=True)
class Use:
    """One request: when it was admitted, when it became known, and what it used."""

    at: datetime
    known: datetime
    model: str
    is_batch: bool
    tokens_in: int
    tokens_out: int
    requests: int

    @property
    def version(self) -> int:
        return 1 if self.at < datetime(2024, 7, 10, tzinfo=UTC) else 2


@dataclass
class Credit:
    """What is left of a grant, in cents."""

    left: int
    bought: bool
    since: datetime
    until: datetime | None


def rounded(amount: Fraction) -> int:
    """To a whole number, halves away from zero."""
    size = floor(abs(amount) + Fraction(1, 2))
    return size if amount >= 0 else -size


def graduated(tiers: Sequence[tuple[int | None, str, str]], quantity: int) -> Fraction:
    """Each part of the quantity at its tier."""
    total, below = Fraction(0), 0
    for up_to, unit, flat in tiers:
        if below and quantity <= below:
            break
        top = quantity if up_to is None else min(quantity, up_to)
        total += (top - below) * Fraction(unit) + Fraction(flat)
        below = top if up_to is None else up_to
    return total


def volume(tiers: Sequence[tuple[int | None, str, str]], quantity: int) -> Fraction:
    """All of it at the tier it ends in."""
    for up_to, unit, flat in tiers:
        if up_to is None or quantity <= up_to:
            return quantity * Fraction(unit) + Fraction(flat)
    raise AssertionError("the last tier is open")


def package(size_and_price: tuple[int, Fraction], quantity: int) -> Fraction:
    """Every package that was begun."""
    size, amount = size_and_price
    return -(-quantity // size) * amount


def month_end(month: int) -> datetime:
    """The first instant after a month of 2024."""
    return datetime(2024 + month // 12, month % 12 + 1, 1, tzinfo=UTC)


def owed(uses: Iterable[Use], closes: Sequence[datetime]) -> int:
    """Cents owed by the last of the closes for everything until then that is known then."""
    now = closes[-1]
    spent = usage(
        [each for each in uses if each.at < now and each.known < now], closes
    )  # by month and contract
    total = sum(spent.values())
    for number, contract in enumerate(CONTRACTS):
        for month in range(1, 13):
            begin, end = datetime(2024, month, 1, tzinfo=UTC), month_end(month)
            first, last = max(begin, contract.starts), min(end, contract.ends)
            if first >= min(last, now):
                continue
            of_month = spent.get((month, number), 0)
            after = of_month - rounded(of_month * contract.discount / 100)
            share = Fraction((last - first).days, (end - begin).days)
            if contract.most is not None:
                after = min(after, rounded(contract.most * share))
            if now >= last:
                after = max(after, rounded(contract.least * share))
            total += after - of_month
    return total


def usage(uses: Iterable[Use], closes: Sequence[datetime]) -> dict[tuple[int, int | None], int]:
    """Cents of usage by month and contract. A price is rounded once for all that it prices."""
    plain: dict[tuple, int] = defaultdict(int)
    output: dict[tuple, int] = defaultdict(int)
    requests: dict[tuple, int] = defaultdict(int)
    for each in uses:
        period = next(close for close in closes if each.at < close)
        number = next(
            (n for n, one in enumerate(CONTRACTS) if one.starts <= each.at < one.ends), None
        )
        place = (each.at.month, number)
        own = number is not None and CONTRACTS[number].own_output
        plain[place, period, each.model, each.is_batch, each.version] += each.tokens_in
        output[place, None if own else each.version] += each.tokens_out
        requests[place, each.is_batch, each.version] += each.requests
    spent: dict[tuple[int, int | None], int] = defaultdict(int)
    for (place, _, model, _, version), quantity in plain.items():
        spent[place] += rounded(100 * quantity * INPUT[version][model])
    for (place, version), quantity in output.items():
        tiers = CONTRACT_OUTPUT if version is None else OUTPUT[version]
        spent[place] += rounded(100 * graduated(tiers, quantity)) if quantity else 0
    for (place, is_batch, version), quantity in requests.items():
        if is_batch:
            spent[place] += rounded(100 * package(PACKAGE[version], quantity))
        else:
            spent[place] += rounded(100 * volume(REQUESTS[version], quantity))
    return spent


def drawn(credit: list[Credit], amount: int, at: datetime) -> int:
    """Takes what pays the amount: the earlier expiry first, then what was given, then the older."""
    never = datetime(9999, 1, 1, tzinfo=UTC)
    live = [each for each in credit if each.since < at and (each.until or never) >= at]
    live.sort(key=lambda each: (each.until or never, each.bought, each.since))
    due = max(0, amount)
    for each in live:
        part = min(due, each.left)
        each.left -= part
        due -= part
    return max(0, amount) - due
