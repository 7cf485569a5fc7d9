"""The whole of 2024, a leap year, of one customer: random usage, and every cent reckoned twice.

January        list prices
10 February    60.00 of credit are bought
11 March       a contract: output at its own price, 12.5 % off, 40.00 a month promised
May            15.00 of credit are given, for May alone
10 July        new list prices, in the middle of the contract
15 August      an invoice in between, and credit that expires at noon of that day
20 September   another contract: list prices, 7.25 % off, at least 30.00, at most 90.00 a month
October        25.00 of credit are bought, which expire in December
November       a very busy month
December       a very quiet one
January 2025   only what came late
"""

import random
from calendar import monthrange
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest

from billing.invoicing.models import Invoice, InvoiceLine
from meterplane.kernel import clock
from tenants.scoping import tenant_scope
from tests.billing.world import ingest
from tests.scenarios.months.reckoning import Credit, Use, drawn, owed
from tests.scenarios.months.story import Story, instant, on, published

pytestmark = pytest.mark.django_db

LIST_PRICES = """
    input_tokens   all                 0.000002
    input_tokens   model=minilm        0.0000005
    output_tokens  all                 graduated 200000 at 0.000006, 600000 at 0.000004 + 1.5, on at 0.000003
    requests       all                 volume 100 at 0.01, 250 at 0.008, on at 0.005 + 0.3
    requests       service_tier=batch  package 10 at 0.07
"""  # noqa: E501
FROM_JULY = """
    input_tokens   all                 0.0000018
    input_tokens   model=minilm        0.0000007
    output_tokens  all                 graduated 300000 at 0.0000055 + 0.25, on at 0.0000035 + 0.75
    requests       all                 volume 150 at 0.009, on at 0.006
    requests       service_tier=batch  package 25 at 0.15
"""
CONTRACT = "output_tokens  all  graduated 400000 at 0.000004, on at 0.000002"
CREDIT = [
    # name, cents, bought or given, from, expires
    ("pack", 60_00, "purchased", "2024-02-10", ""),
    ("may", 15_00, "promotional", "2024-05-05", "2024-06-01"),
    ("august", 10_00, "promotional", "2024-08-01", "2024-08-15 12:00"),
    ("autumn", 25_00, "purchased", "2024-10-03", "2024-12-15"),
]
CLOSES = [instant(f"2024-{month:02}-01") for month in range(2, 13)]
CLOSES = sorted([*CLOSES, instant("2024-08-15"), instant("2025-01-01"), instant("2025-02-01")])
# At each of these something begins or ends: usage is there in its first and its last millisecond.
EDGES = ["2024-03-01", "2024-03-11", "2024-07-10", "2024-08-15", "2024-09-20", "2025-01-01"]
# Beside any other month: enough for the maximum whatever chance says, and too little for what was
# promised, which is as sure.
BUSY = {4: "0.4", 11: "12", 12: "0.1"}
MONTH = {"tokens_in": 25_000_000, "tokens_out": 900_000, "requests": 400}
MS = timedelta(milliseconds=1)


def used_in_a_year(seed: int, days: int, events: int, late_percent: int) -> list[Use]:
    """On so many days of each month so many requests together, and two at every edge.

    Of so many the gateway's disk was away.
    """
    chance = random.Random(seed)
    instants = [at for edge in EDGES for at in (instant(edge) - MS, instant(edge))]
    for month in range(1, 13):
        of_month = chance.sample(range(1, monthrange(2024, month)[1] + 1), days)
        for _ in range(events):
            day = datetime(2024, month, chance.choice(of_month), tzinfo=UTC)
            instants.append(day + chance.randrange(86_400_000) * MS)
    return [_use(chance, at, events, late_percent) for at in sorted(instants) if at.year == 2024]


def _use(chance: random.Random, at: datetime, events: int, late_percent: int) -> Use:
    known = at
    if chance.randrange(100) < late_percent:  # until after its period was closed, or two of them
        after = [close for close in CLOSES[:-1] if close > at][: chance.choice([1, 1, 2])]
        known = after[-1] + timedelta(minutes=chance.randrange(1, 14 * 1440))
    counts = {}
    for name, most in MONTH.items():
        mean = int(most * Fraction(BUSY.get(at.month, "1")) / events)
        counts[name] = chance.randint(mean // 2, mean * 3 // 2) + 1
    model = chance.choice(["tiny-lm", "tiny-lm", "tiny-lm", "minilm"])
    return Use(at=at, known=known, model=model, is_batch=chance.random() < 0.3, **counts)


class Year:
    """The customer in the product, and what the reckoning says of it."""

    def __init__(self, acme: Story, uses: Sequence[Use]) -> None:
        self.acme = acme
        self.uses = uses
        self.credit: list[Credit] = []
        with on("2024-06-20"):
            self.versions = {1: acme.version, 2: published(FROM_JULY, starts="2024-07-10")}
        self.owed = 0
        self.paid_by_credit = 0

    def passes(self, since: datetime, until: datetime) -> None:
        """Everything that happens between two closes, in its order."""
        for starts, prices, terms in (
            ("2024-03-11", CONTRACT, {"discount_percent": "12.5", "commitment": "40"}),
            ("2024-09-20", "", {"discount_percent": "7.25", "minimum_spend": "30",
                                "maximum_spend": "90", "ends_at": "2025-01-01"}),
        ):  # fmt: skip
            if since <= instant(starts) < until:
                with clock.frozen(instant(starts) - timedelta(days=2)):
                    self.acme.agrees(starts, prices, **terms)
        for name, cents, kind, begins, expires in CREDIT:
            if since <= instant(begins) < until:
                with on(begins):
                    self.acme.gets_credit(name, self.acme.text(cents), kind, expires)
                ends = instant(expires) if expires else None
                self.credit.append(Credit(cents, kind == "purchased", instant(begins), ends))
        known = [each for each in self.uses if since <= each.known < until]
        with clock.frozen(until - MS):
            if known:
                ingest(*(self._event(each) for each in known))

    def _event(self, use: Use):
        return self.acme.event(
            use.at,
            self.versions[use.version],
            model=use.model,
            service_tier="batch" if use.is_batch else "standard",
            tokens_in=use.tokens_in,
            tokens_out=use.tokens_out,
            requests=use.requests,
        )

    def closes(self, number: int) -> None:
        """The invoice is the reckoning's to the cent, and so are credit and books."""
        acme, at = self.acme, CLOSES[number]
        now_owed = owed(self.uses, CLOSES[: number + 1])
        lines, self.owed = now_owed - self.owed, now_owed
        credit = drawn(self.credit, lines, at)
        self.paid_by_credit += credit
        invoice = acme.closes(f"{at:%Y-%m-%d}")
        assert self.of(invoice) == (lines, -credit, lines - credit), f"{at:%Y-%m-%d}"
        acme.loses_expired_credit(f"{at:%Y-%m-%d}")
        left = sum(each.left for each in self.credit if each.until is None or each.until > at)
        assert acme.credit_at(f"{at:%Y-%m-%d}") == acme.text(left)
        if invoice is not None and invoice.total_minor > 0:
            with clock.frozen(at + timedelta(days=3)):
                acme.moves(invoice, "paid")
        books = dict(row.split(" | ") for row in acme.books())
        earned = sum(
            acme.minor(amount) for name, amount in books.items() if name.startswith("revenue:")
        )
        assert -earned == self.owed

    def of(self, invoice: Invoice | None) -> tuple[int, int, int]:
        """Its lines, its credit and its total; without an invoice nothing is owed."""
        if invoice is None:
            return 0, 0, 0
        with tenant_scope(self.acme.tenant.id):
            found = InvoiceLine.objects.filter(invoice_id=invoice.id)
            amounts = list(found.values_list("kind", "amount_minor"))
        credit = sum(amount for kind, amount in amounts if kind == "credit")
        return sum(amount for _, amount in amounts) - credit, credit, invoice.total_minor

    def kinds(self) -> set[str]:
        """What kinds of lines there were."""
        with tenant_scope(self.acme.tenant.id):
            return set(InvoiceLine.objects.values_list("kind", flat=True))


def lived(begins, seed: int, days: int, events: int, late_percent: int) -> Year:
    """The year, checked at every close and at its end."""
    print(f"seed {seed}, {events} events on {days} days a month, {late_percent} % late")
    uses = used_in_a_year(seed, days, events, late_percent)
    year = Year(begins("acme", "2024-01-01", LIST_PRICES), uses)
    since = instant("2024-01-01")
    for number, until in enumerate(CLOSES):
        year.passes(since, until)
        year.closes(number)
        since = until
    # All invoices, and what credit paid of them, are what the year costs by what is known now.
    assert year.owed == owed(uses, CLOSES)
    assert year.acme.invoiced() == year.acme.text(year.owed - year.paid_by_credit)
    # Each period replays to the very hash it was closed with, unless usage of it, or of one before
    # it, came after; and then nothing is owed that is on no invoice.
    assert year.acme.replays() == [
        (
            f"{start:%m-%d}",
            all(each.known < close for each in uses if each.at < close),
            "0.00",
        )
        for start, close in zip([instant("2024-01-01"), *CLOSES], CLOSES, strict=False)
    ]
    assert year.kinds() >= {"usage", "discount", "maximum", "minimum", "commitment", "credit"}
    return year


def test_a_year_is_the_reckoning_to_the_cent_and_replays_to_the_same_hashes(begins):
    lived(begins, random.randrange(10**9), days=1, events=6, late_percent=0)


def test_a_year_with_late_events_is_the_reckoning_to_the_cent(begins):
    year = lived(begins, random.randrange(10**9), days=1, events=6, late_percent=25)
    assert "adjustment" in year.kinds()


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("late_percent", [0, 10, 60])
@pytest.mark.parametrize("run", range(5))
def test_a_busy_year(begins, run, late_percent):
    seed = random.randrange(10**9)
    lived(begins, seed, days=12, events=150, late_percent=late_percent)
