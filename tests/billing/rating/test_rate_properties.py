"""What must hold for every bill, and a second rater written with fractions."""

from fractions import Fraction
from uuid import UUID

from hypothesis import strategies as st

from billing.pricing.book import ModelPrices, PublishedBook
from billing.rating.rate import METERS, TIERS, Quantity, rate
from meterplane.kernel.money import minor_digits
from tests.billing.properties import holds_for
from tests.billing.rating.cases import LATE_SEPTEMBER, OCTOBER, halves

MODELS = ["a", "b", "tiny-lm"]
VERSIONS = [UUID(int=number) for number in (1, 2, 3)]
CURRENCIES = ["USD", "JPY", "KWD"]

unit_prices = st.one_of(
    st.integers(0, 10**7),  # tokens: up to a hundred-thousandth
    st.integers(0, 5 * 10**12),  # requests: up to five whole units
)
model_prices = st.builds(ModelPrices, *[unit_prices] * 6)
quantities = st.lists(
    st.builds(
        Quantity,
        period=st.sampled_from([OCTOBER, LATE_SEPTEMBER]),
        model=st.sampled_from(MODELS),
        meter=st.sampled_from(METERS),
        price_version_id=st.sampled_from(VERSIONS),
        units=st.one_of(st.integers(0, 50), st.integers(0, 10**13)),
        service_tier=st.sampled_from(TIERS),
    ),
    max_size=30,
)


@st.composite
def books(draw, currency=None):
    """Three versions with every model priced, in one currency."""
    code = currency or draw(st.sampled_from(CURRENCIES))
    return code, {
        version: PublishedBook(version, code, {model: draw(model_prices) for model in MODELS})
        for version in VERSIONS
    }


@holds_for(books(), quantities, st.randoms(use_true_random=False), quick_examples=60)
def test_order_splits_and_empty_inputs_cannot_matter(book, used, random):
    currency, prices = book
    expected = rate(used, prices, currency)
    shuffled = halves(used) + [
        Quantity(OCTOBER, "a", meter, version, 0, tier)
        for meter in METERS
        for version in VERSIONS
        for tier in TIERS
    ]
    random.shuffle(shuffled)
    assert rate(shuffled, prices, currency) == expected


@holds_for(books(), quantities, quick_examples=60)
def test_lines_add_up_and_each_is_off_by_at_most_half_a_minor_unit(book, used):
    currency, prices = book
    rated = rate(used, prices, currency)
    assert rated.total_minor == sum(line.amount_minor for line in rated.lines)
    pico_per_minor = 10 ** (12 - minor_digits(currency))
    for line in rated.lines:
        assert line.amount_pico == line.quantity * line.unit_price_pico
        assert 2 * abs(line.amount_minor * pico_per_minor - line.amount_pico) <= pico_per_minor


@holds_for(books(), quantities, quick_examples=50)
def test_a_second_rater_made_of_fractions_agrees_to_the_cent(book, used):
    currency, prices = book
    owed: dict[tuple[object, ...], Fraction] = {}
    for each in used:
        unit = prices[each.price_version_id].prices[each.model]
        price = Fraction(
            {
                ("input_tokens", "standard"): unit.input_token_pico,
                ("output_tokens", "standard"): unit.output_token_pico,
                ("requests", "standard"): unit.request_pico,
                ("input_tokens", "batch"): unit.batch_input_token_pico,
                ("output_tokens", "batch"): unit.batch_output_token_pico,
                ("requests", "batch"): unit.batch_request_pico,
            }[each.meter, each.service_tier],
            10**12,
        )
        key = (each.period, each.model, each.service_tier, each.meter, each.price_version_id)
        owed[key] = owed.get(key, Fraction(0)) + each.units * price
    minor = 10 ** minor_digits(currency)
    by_hand = {key: int(amount * minor + Fraction(1, 2)) for key, amount in owed.items() if amount}
    rated = rate(used, prices, currency)
    assert {
        (
            line.period,
            line.model,
            line.service_tier,
            line.meter,
            line.price_version_id,
        ): line.amount_minor
        for line in rated.lines
    } == by_hand
    assert rated.total_minor == sum(by_hand.values())


@holds_for(books(), quantities, quantities, quick_examples=50)
def test_more_usage_never_costs_less(book, used, more):
    currency, prices = book
    assert (
        rate(used + more, prices, currency).total_minor >= rate(used, prices, currency).total_minor
    )


@holds_for(books(currency="USD"), quantities, quantities, quick_examples=50)
def test_equal_hashes_mean_equal_lines(book, used, other):
    _, prices = book
    one, two = rate(used, prices, "USD"), rate(other, prices, "USD")
    assert (one.content_hash == two.content_hash) == (_sums(used) == _sums(other))


def _sums(used):
    sums: dict[tuple[object, ...], int] = {}
    for each in used:
        key = (each.period, each.model, each.service_tier, each.meter, each.price_version_id)
        sums[key] = sums.get(key, 0) + each.units
    return {key: units for key, units in sums.items() if units}
