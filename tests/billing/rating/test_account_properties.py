"""What must hold for a customer's bills over months: books, contracts, tiers, and late usage."""

import pickle
from dataclasses import dataclass, replace
from fractions import Fraction

from hypothesis import assume
from hypothesis import strategies as st

from billing.pricing.book import ModelPrices, PublishedBook
from billing.pricing.contract import Contract
from billing.rating.rate import Account, Billed, Period, Quantity, RatedPeriod, rate
from billing.rating.values import month_after, month_of
from meterplane.kernel.decimals import text_to_decimal
from meterplane.kernel.money import divide_half_away, minor_digits, minor_to_text
from tests.billing.properties import holds_for
from tests.billing.rating.agreements import bill, billed, book, contract, entry, period, used
from tests.billing.rating.cases import halves, version
from tests.billing.rating.test_rate_entries_properties import price_models, terms

SEPTEMBER = period("09-01 10-01")
OCTOBER = period("10-01 11-01")
NOVEMBER = period("11-01 12-01")
LATE_SEPTEMBER, LATE_OCTOBER = (replace(each, is_late=True) for each in (SEPTEMBER, OCTOBER))


@dataclass(frozen=True)
class Story:
    """What a customer used in September, how much of it was known when September was closed, and
    what it used in October."""

    currency: str
    prices: dict[object, PublishedBook]
    contracts: list[Contract]
    known: list[Quantity]
    september: list[Quantity]
    october: list[Quantity]

    def bill(self, quantities, *periods: Period, invoices=()) -> RatedPeriod:
        return bill(
            quantities, self.prices, *periods,
            invoices=invoices, contracts=self.contracts, currency=self.currency,
        )  # fmt: skip

    def inputs(self) -> tuple[list[Quantity], tuple[Billed, ...]]:
        """Of October's bill: all usage, and what September's says."""
        late = [replace(each, period=LATE_SEPTEMBER) for each in self.september]
        return [*late, *self.october], billed(self.bill(self.known, SEPTEMBER))

    def october_bill(self, quantities, facts, contracts=None) -> RatedPeriod:
        held = {each.id: each for each in contracts or self.contracts}
        return rate(
            quantities, self.prices, self.currency,
            Account((LATE_SEPTEMBER, OCTOBER), tuple(facts), held),
        )  # fmt: skip


@st.composite
def stories(draw):
    """Two versions, one of before there were entries; two contracts, one with entries of its own;
    tokens and requests of three models in two tiers."""
    currency = draw(st.sampled_from(["USD", "JPY", "KWD"]))
    unit = st.integers(0, 10**10)
    prices = book(
        1,
        entry(1, "requests", "", draw(price_models())),
        entry(2, "requests", "model=a", draw(price_models())),
        entry(3, "requests", "model=a service_tier=batch", draw(price_models())),
        entry(4, "input_tokens", "", draw(price_models())),
        currency=currency,
    )
    listed = {model: ModelPrices(*(draw(unit) for _ in range(6))) for model in "abc"}
    prices[version(2)] = PublishedBook(version(2), currency, listed)
    own = draw(st.lists(st.sampled_from(["model=a", "model=b", ""]), unique=True, max_size=2))
    entries = tuple(
        entry(10 + n, "requests", match, draw(price_models())) for n, match in enumerate(own)
    )
    contracts = [
        contract(1, "09-01", "09-20", currency=currency, **draw(terms)),
        contract(2, "09-20", "11-01", currency=currency, own=entries, **draw(terms)),
    ]

    def some(within: Period, held: list[Contract | None]) -> list[Quantity]:
        found = []
        for _ in range(draw(st.integers(0, 6))):
            number = draw(st.sampled_from([1, 2]))
            meter = draw(st.sampled_from(["requests", "input_tokens"]))
            tier = draw(st.sampled_from(["", "batch"]))
            row = f"{number} {draw(st.sampled_from('abc'))} {draw(st.integers(0, 150))} {tier}"
            by = draw(st.sampled_from(held))
            found += used(row, within, meter, contract_id=by.id if by else None)
        return found

    september = some(SEPTEMBER, [None, *contracts])
    known = [replace(each, units=draw(st.integers(0, each.units))) for each in september]
    return Story(currency, prices, contracts, known, september, some(OCTOBER, [None, contracts[1]]))


@holds_for(stories(), st.randoms(use_true_random=False), quick_examples=15)
def test_order_batching_empties_and_a_replay_cannot_matter(story, random):
    quantities, facts = story.inputs()
    once = story.october_bill(quantities, facts)
    shuffled = halves(quantities) + [replace(each, units=0) for each in quantities]
    random.shuffle(shuffled)
    told = list(facts)
    random.shuffle(told)
    assert story.october_bill(shuffled, told, story.contracts[::-1]) == once
    # As another process would read it, another day.
    later = pickle.loads(pickle.dumps((story, quantities, facts)))
    assert later[0].october_bill(*later[1:]).content_hash == once.content_hash


@holds_for(stories(), st.data(), quick_examples=15)
def test_another_input_has_another_hash(story, data):
    quantities, facts = story.inputs()
    assume(quantities)
    once = story.october_bill(quantities, facts)
    number = data.draw(st.integers(0, len(quantities) - 1))
    more = [replace(each, units=each.units + (n == number)) for n, each in enumerate(quantities)]
    other = story.october_bill(more, facts)
    if other.content_hash == once.content_hash:
        # What is free and came late is on no bill.
        assert quantities[number].period.is_late
        assert other == once
    first, second = story.contracts
    agreed = replace(second, terms=replace(second.terms, minimum_minor=77_777))
    assert story.october_bill(quantities, facts, [first, agreed]).content_hash != once.content_hash
    if facts:
        number = data.draw(st.integers(0, len(facts) - 1))
        told = [
            replace(each, amount_minor=each.amount_minor + (n == number))
            for n, each in enumerate(facts)
        ]
        assert story.october_bill(quantities, told).content_hash != once.content_hash


@holds_for(stories(), quick_examples=15)
def test_lines_add_up_and_each_says_how_it_comes_about(story):
    quantities, facts = story.inputs()
    rated = story.october_bill(quantities, facts)
    assert rated.total_minor == sum(line.amount_minor for line in rated.lines)
    digits = minor_digits(story.currency)
    for line in rated.lines:
        assert line.amount_minor or line.quantity, "a line of nothing is not shown"
        if line.unit_price_pico is not None:
            assert line.amount_pico == line.quantity * line.unit_price_pico
        if not line.breakdown or "exact" not in line.breakdown:
            continue
        told = line.breakdown
        exact = sum(Fraction(tier["amount"]) for tier in told["tiers"])
        assert exact == Fraction(told["exact"])
        scaled = exact * 10**digits
        whole = divide_half_away(scaled.numerator, scaled.denominator)
        assert told["amount"] == minor_to_text(whole, story.currency)
        before = told.get("billed_before", {"amount": "0", "quantity": "0"})
        assert line.amount_minor == whole - Fraction(before["amount"]) * 10**digits
        assert line.quantity == Fraction(told["quantity"]) - Fraction(before["quantity"])
        matched = sum(Fraction(each["quantity"]) for each in told["matched"])
        assert matched == Fraction(told["quantity"])


@holds_for(stories(), quick_examples=15)
def test_what_was_billed_once_is_not_billed_again_however_often_it_is_told(story):
    quantities, _ = story.inputs()
    first = story.bill(story.known, SEPTEMBER)
    second = story.bill(quantities, LATE_SEPTEMBER, OCTOBER, invoices=[first])
    late = [replace(each, period=replace(each.period, is_late=True)) for each in quantities]
    again = story.bill(
        late, LATE_SEPTEMBER, LATE_OCTOBER, NOVEMBER, invoices=[first, second]
    )  # fmt: skip
    assert (again.lines, again.total_minor) == ((), 0)


@holds_for(stories(), quick_examples=15)
def test_usage_that_came_late_owes_what_it_would_have_in_time_but_for_rounding(story):
    """And so do tiers that it moves, discounts and bounds: all to the minor unit."""
    quantities, facts = story.inputs()
    in_time = story.bill(story.september, SEPTEMBER)
    late = story.october_bill(quantities, facts)
    before = sum(each.amount_minor for each in facts)
    owed = before + sum(line.amount_minor for line in late.lines if line.period == LATE_SEPTEMBER)
    # A version of before there were entries rounds what came late for itself.
    apart = sum(line.unit_price_pico is not None and line.entry_id is None for line in late.lines)
    assert abs(owed - in_time.total_minor) <= apart


@holds_for(stories(), quick_examples=15)
def test_each_term_of_a_contract_is_reckoned_from_what_the_one_before_left(story):
    quantities, facts = story.inputs()
    rated = story.october_bill(quantities, facts)
    second = story.contracts[1]
    owed = dict.fromkeys(["usage", "discount", "maximum", "minimum", "commitment"], 0)
    for line in rated.lines:
        if line.contract_id == second.id and month_of(line.period.starts_at) == OCTOBER.starts_at:
            owed["usage" if line.kind == "adjustment" else line.kind] += line.amount_minor
    agreed = second.terms
    assert (month_after(OCTOBER.starts_at), agreed.starts_at < OCTOBER.starts_at) == (
        agreed.ends_at, True
    )  # fmt: skip
    part = -owed["usage"] * Fraction(agreed.discount_percent or text_to_decimal("0")) / 100
    spent = owed["usage"] + divide_half_away(part.numerator, part.denominator)
    assert owed["discount"] == spent - owed["usage"]
    if agreed.maximum_minor is not None:
        assert owed["maximum"] == min(0, agreed.maximum_minor - spent)
    spent += owed["maximum"]
    for kind, least in (("minimum", agreed.minimum_minor), ("commitment", agreed.commitment_minor)):
        assert owed[kind] == max(0, (least or 0) - spent)
        spent += owed[kind]
