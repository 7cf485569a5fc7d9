"""Rating in tables: each case can be checked with a pocket calculator."""

from dataclasses import replace

import pytest

from billing.rating.explain import explain
from billing.rating.rate import TIERS, UsageCannotBeRated, rate
from meterplane.kernel.money import UnknownCurrency
from tests.billing.rating.cases import LATE_SEPTEMBER, as_table, books, table, usage

PRICES = """
    1 tiny-lm  0.0000002  0.0000006  0.0001
    1 minilm   0.00000002 0          0
    2 tiny-lm  0.0000003  0.0000006  0.0001
"""


def test_each_meter_of_each_model_and_version_is_a_line():
    rated = rate(
        usage("""
            2 tiny-lm 10000000   200000  1000
            1 tiny-lm  1000000  1000000   500
            1 minilm  50000000        0  9999
        """),
        books(PRICES),
        "USD",
    )
    # 50,000,000 x 0.00000002 = 1.00; 1,000,000 x 0.0000002 = 0.20; 10,000,000 x 0.0000003 = 3.00
    assert as_table(rated) == table("""
        2026-10 1 minilm input_tokens 50000000 100
        2026-10 1 tiny-lm input_tokens 1000000 20
        2026-10 2 tiny-lm input_tokens 10000000 300
        2026-10 1 tiny-lm output_tokens 1000000 60
        2026-10 2 tiny-lm output_tokens 200000 12
        2026-10 1 tiny-lm requests 500 5
        2026-10 2 tiny-lm requests 1000 10
    """)
    assert rated.total_minor == 507


def test_batch_usage_is_rated_at_the_batch_prices_of_its_version_on_lines_of_its_own():
    prices = books("1 tiny-lm 0.0000002 0.0000006 0.0001 0.0000001 0.0000003 0.00005")
    used = "1 tiny-lm 10000000 1000000 1000"
    rated = rate(usage(used) + usage(used, tier="batch"), prices, "USD")
    assert as_table(rated) == table("""
        2026-10 1 tiny-lm input_tokens 10000000 200
        2026-10 1 tiny-lm output_tokens 1000000 60
        2026-10 1 tiny-lm requests 1000 10
        2026-10 1 tiny-lm input_tokens 10000000 100
        2026-10 1 tiny-lm output_tokens 1000000 30
        2026-10 1 tiny-lm requests 1000 5
    """)
    assert [line.service_tier for line in rated.lines] == ["standard"] * 3 + ["batch"] * 3
    assert rated.lines[3].explanation == "10,000,000 batch input tokens x $0.0000001 = $1.00"
    assert rated.total_minor == 405


def test_batch_usage_without_batch_prices_is_refused_never_free_and_never_standard():
    with pytest.raises(UsageCannotBeRated, match="no batch prices for this model"):
        rate(usage("1 tiny-lm 1 0 0", tier="batch"), books(PRICES), "USD")
    assert rate(usage("1 tiny-lm 0 0 0", tier="batch"), books(PRICES), "USD").lines == ()


def test_the_hash_tells_tiers_apart_even_at_equal_prices():
    prices = books("1 a 0.001 0 0 0.001 0 0")
    one, other = (rate(usage("1 a 9 0 0", tier=tier), prices, "USD") for tier in TIERS)
    assert one.total_minor == other.total_minor
    assert one.content_hash != other.content_hash


def test_late_usage_comes_after_the_period_and_names_its_own():
    rated = rate(
        usage("1 tiny-lm 0 0 300") + usage("1 tiny-lm 0 0 200", LATE_SEPTEMBER),
        books(PRICES),
        "USD",
    )
    assert as_table(rated) == table("""
        2026-10 1 tiny-lm requests 300 3
        2026-09 late 1 tiny-lm requests 200 2
    """)


def test_a_line_is_rounded_once_and_halves_go_away_from_zero():
    prices = books("1 a 0.001 0 0\n1 b 0.001 0 0\n1 c 0.001 0 0")
    rated = rate(usage("1 a 4 0 0\n1 b 5 0 0\n1 c 14 0 0"), prices, "USD")
    # 0.4, 0.5 and 1.4 cents: rounded per line 0 + 1 + 1, never 2.3 as a whole.
    assert [line.amount_minor for line in rated.lines] == [0, 1, 1]
    assert rated.total_minor == 2
    assert [line.amount_pico for line in rated.lines] == [4 * 10**9, 5 * 10**9, 14 * 10**9]


@pytest.mark.parametrize(("currency", "amount_minor"), [("JPY", 2), ("USD", 150), ("KWD", 1500)])
def test_the_minor_unit_is_the_currencys(currency, amount_minor):
    rated = rate(usage("1 a 15 0 0"), books("1 a 0.1 0 0", currency), currency)
    assert rated.total_minor == amount_minor


def test_nothing_used_owes_nothing_and_has_no_line():
    rated = rate(usage("1 tiny-lm 0 0 0"), books(PRICES), "USD")
    assert (rated.lines, rated.total_minor) == ((), 0)
    assert rated == rate([], {}, "USD")


def test_a_meter_with_price_zero_has_no_line_but_is_in_the_hash():
    free = rate(usage("1 minilm 0 0 7"), books(PRICES), "USD")
    assert free.lines == ()
    assert free.content_hash != rate([], {}, "USD").content_hash


def test_the_hash_tells_apart_what_the_amounts_do_not():
    """4 and 3 tokens both cost nothing after rounding; the hash still differs."""
    prices = books("1 a 0.001 0 0")
    three, four = (rate(usage(f"1 a {n} 0 0"), prices, "USD") for n in (3, 4))
    assert three.total_minor == four.total_minor == 0
    assert three.content_hash != four.content_hash


def test_usage_without_a_price_is_refused_never_free():
    with pytest.raises(UsageCannotBeRated, match="no such price version"):
        rate(usage("9 tiny-lm 1 0 0"), books(PRICES), "USD")
    with pytest.raises(UsageCannotBeRated, match="no price for this model"):
        rate(usage("2 minilm 1 0 0"), books(PRICES), "USD")


def test_currencies_never_mix():
    with pytest.raises(UsageCannotBeRated, match="priced in USD, billed in EUR"):
        rate(usage("1 tiny-lm 1 0 0"), books(PRICES), "EUR")
    with pytest.raises(UnknownCurrency):
        rate([], {}, "XXX")


def test_more_invoiced_than_used_is_refused():
    negative = [replace(usage("1 tiny-lm 1 0 0")[0], units=-1)]
    with pytest.raises(UsageCannotBeRated, match="more was invoiced than was used"):
        rate(negative, books(PRICES), "USD")


def test_a_line_explains_itself():
    assert explain(1204, "input_tokens", 150_000, 0, "USD") == (
        "1,204 input tokens x $0.00000015 = $0.00"
    )
    assert explain(1, "requests", 5, 0, "USD", "batch") == (
        "1 batch request x $0.000000000005 = $0.00"
    )
    assert explain(1, "requests", 10**12, 1, "JPY") == "1 request x ¥1 = ¥1"
    assert explain(2_000_000, "output_tokens", 600_000, 1200, "CHF") == (
        "2,000,000 output tokens x CHF 0.0000006 = CHF 12.00"
    )


def test_the_same_inputs_give_this_very_hash():
    """A changed hash means old invoices can no longer be replayed: change the version in it."""
    rated = rate(usage("1 tiny-lm 1204 88 3"), books(PRICES), "USD")
    assert rated.content_hash == (
        "d5e210e75f36b760858971bc00a5e4f101b33d2ab966c30b82be208270a7a18d"
    )
