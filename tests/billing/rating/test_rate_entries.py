"""Entries with tiers, contracts and late usage in tables: checked with a pocket calculator."""

from dataclasses import replace
from decimal import Decimal
from uuid import UUID

import pytest

from billing.pricing.book import ModelPrices
from billing.pricing.entry import match_of
from billing.rating.rate import Quantity, UsageCannotBeRated, rate
from tests.billing.rating.agreements import (
    GRADUATED,
    VOLUME,
    bill,
    book,
    contract,
    entry,
    period,
    told,
    used,
)
from tests.billing.rating.cases import table, version

OCTOBER = period("10-01 11-01")
CLOSED_OCTOBER = period("10-01 11-01", late=True)
NOVEMBER = period("11-01 12-01")
TIERS = book(1, entry(1, "requests", "", GRADUATED))
STEPS = book(1, entry(1, "requests", "", VOLUME))


def test_tiers_count_everything_an_entry_matched_across_models():
    rated = bill(used("1 a 800\n1 b 700", OCTOBER), TIERS, OCTOBER)
    # 1,000 x 0.01 + 500 x 0.005 = 12.50; each model for itself would be 8 + 7.
    assert told(rated) == "10-01 usage e1 1500 1250"
    line = rated.lines[0]
    assert line.explanation == "1,500 requests: 1,000 x $0.01 + 500 x $0.005 = $12.50"
    assert line.breakdown is not None
    assert [(each["quantity"], each["amount"]) for each in line.breakdown["tiers"]] == [
        ("1000", "10"),
        ("500", "2.5"),
    ]
    assert line.breakdown["matched"] == [
        {"model": "a", "service_tier": "standard", "quantity": "800"},
        {"model": "b", "service_tier": "standard", "quantity": "700"},
    ]
    assert (line.model, line.unit_price_pico, line.price_model) == (
        "",
        None,
        GRADUATED | {"tiers": [each | {"flat_amount": "0"} for each in GRADUATED["tiers"]]},
    )


def test_the_most_specific_entry_wins_and_unit_prices_keep_a_line_for_each_model():
    prices = book(
        1,
        entry(1, "requests", "", "0.01"),
        entry(2, "requests", "model=a", "0.02"),
        entry(3, "requests", "model=a service_tier=batch", "0.005"),
    )
    rated = bill(used("1 a 100\n1 a 100 batch\n1 b 100\n1 c 100", OCTOBER), prices, OCTOBER)
    assert told(rated) == table("""
        10-01 usage e2 100 200
        10-01 usage e3 100 50
        10-01 usage e1 100 100
        10-01 usage e1 100 100
    """)
    assert [line.model for line in rated.lines] == ["a", "a", "b", "c"]


def served(table_of: str, number: int = 1, **more) -> list[Quantity]:
    """`a 120 normal eu-west` per line: model, units, priority, region; `-` is not said."""
    found = []
    for line in table_of.strip().splitlines():
        model, units, priority, region, *tier = line.split()
        (quantity,) = used(f"{number} {model} {units} {' '.join(tier)}", OCTOBER, **more)
        told = {"model": model, "service_tier": quantity.service_tier, "priority": priority,
                "region": region.removeprefix("-")}  # fmt: skip
        found.append(replace(quantity, dimensions=match_of(told)))
    return found


PLACES = book(
    1,
    entry(1, "requests", "", "1"),
    entry(2, "requests", "region=eu", "2"),
    entry(3, "requests", "priority=high", "3"),
    entry(4, "requests", "priority=high region=eu", "4"),
    entry(5, "requests", "region=eu service_tier=batch", "5"),
    entry(6, "requests", "model=a priority=low region=eu", "6"),
)


def test_the_most_specific_price_wins_over_class_region_and_tier():
    rated = bill(
        served("""
            a 1  normal -
            a 2  normal us
            a 4  normal eu
            a 8  high   -
            a 16 high   us
            a 32 high   eu
            a 64 low    eu
            b 1  low    eu
            b 2  low    eu  batch
        """),
        PLACES,
        OCTOBER,
    )
    # Of each price a line for each model and tier, whatever else told its usage apart.
    assert told(rated) == table("""
        10-01 usage e1 3 300
        10-01 usage e2 4 800
        10-01 usage e3 24 7200
        10-01 usage e4 32 12800
        10-01 usage e6 64 38400
        10-01 usage e2 1 200
        10-01 usage e5 2 1000
    """)
    assert [line.explanation for line in rated.lines[1:6]] == [
        "4 requests (region eu) x $2 = $8.00",
        "24 requests (priority high) x $3 = $72.00",
        "32 requests (priority high, region eu) x $4 = $128.00",
        "64 requests (priority low, region eu) x $6 = $384.00",
        "1 request (region eu) x $2 = $2.00",
    ]
    assert [line.breakdown for line in rated.lines[:2]] == [None, {"match": {"region": "eu"}}]


def test_usage_that_does_not_say_how_it_was_served_is_normal_and_of_no_place():
    prices = book(1, entry(1, "requests", "", "1"), entry(2, "requests", "priority=normal", "2"),
                  entry(3, "requests", "region=eu priority=normal", "3"))  # fmt: skip
    assert told(bill(used("1 a 5", OCTOBER), prices, OCTOBER)) == "10-01 usage e2 5 1000"


def test_tiers_for_a_region_count_all_of_it_and_nothing_else():
    prices = book(1, entry(1, "requests", "region=eu", GRADUATED), entry(2, "requests", "", "1"))
    rated = bill(served("a 800 high eu\nb 700 low eu\nb 5 low -"), prices, OCTOBER)
    assert told(rated) == "10-01 usage e2 5 500\n10-01 usage e1 1500 1250"


def test_a_contract_s_price_for_a_region_stands_where_the_book_names_no_more():
    held = contract(
        own=[entry(50, "requests", "model=a region=eu", "0.5", contract_id=UUID(int=1))]
    )
    quantities = served("a 10 high eu\na 10 normal eu\na 10 normal us", contract_id=held.id)
    assert told(bill(quantities, PLACES, OCTOBER, contracts=[held])) == table("""
        10-01 usage e1 10 1000
        10-01 usage e50 20 1000
    """)
    listed = {
        version(1): replace(PLACES[version(1)], prices={"a": ModelPrices(1, 1, 7)}, entries=())
    }
    narrow = contract(own=[entry(51, "requests", "region=eu", "0.5", contract_id=UUID(int=1))])
    # A version of unit prices names model and tier: more than the contract does.
    rated = bill([replace(each, contract_id=narrow.id) for each in quantities], listed, OCTOBER,
                 contracts=[narrow])  # fmt: skip
    assert [line.entry_id for line in rated.lines] == [None]
    rated = bill(quantities, listed, OCTOBER, contracts=[held])
    assert {line.entry_id for line in rated.lines} == {None, UUID(int=1050)}


def test_without_a_price_that_matches_by_it_how_it_was_served_changes_nothing():
    plain = book(1, entry(1, "requests", "", "0.01"), entry(2, "requests", "model=a", "0.02"))
    apart = served("a 100 high eu\na 20 low us\nb 3 normal -")
    together = used("1 a 120\n1 b 3", OCTOBER)
    assert rate(apart, plain, "USD") == rate(together, plain, "USD")


def test_what_no_price_covers_is_refused():
    prices = book(1, entry(1, "requests", "region=eu", "1"))
    with pytest.raises(UsageCannotBeRated, match="no price"):
        rate(served("a 1 normal us"), prices, "USD")


def test_a_version_that_begins_in_the_month_begins_its_tiers():
    prices = TIERS | book(2, entry(2, "requests", "", VOLUME))
    rated = bill(used("1 a 1500\n2 a 1500", OCTOBER), prices, OCTOBER)
    assert told(rated) == table("""
        10-01 usage e1 1500 1250
        10-01 usage e2 1500 750
    """)


def test_contracts_that_share_a_month_and_an_entry_have_lines_in_one_order():
    # Eight orders by chance would be this one once in 40,320 runs.
    days = [f"10-{day:02}" for day in range(1, 10)]
    held = [contract(n + 1, days[n], days[n + 1]) for n in range(8)]
    quantities = [
        replace(used("1 a 10", OCTOBER)[0], units=each.number, contract_id=each.id) for each in held
    ]
    rated = bill(quantities, TIERS, OCTOBER, contracts=held)
    assert [line.quantity for line in rated.lines] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_late_usage_moves_the_whole_quantity_to_another_tier_and_gives_money_back():
    october = bill(used("1 a 900", OCTOBER), STEPS, OCTOBER)
    assert told(october) == "10-01 usage e1 900 900"
    now = used("1 a 900\n1 b 300", CLOSED_OCTOBER)
    november = bill(
        now + used("1 a 100", NOVEMBER), STEPS, CLOSED_OCTOBER, NOVEMBER, invoices=[october]
    )
    # 1,200 x 0.005 = 6.00, and 9.00 were billed.
    assert told(november) == table("""
        11-01 usage e1 100 100
        10-01 late adjustment e1 300 -300
    """)
    assert november.lines[1].explanation.endswith("= $6.00; less $9.00 billed before = -$3.00")
    assert november.total_minor == -200
    december = bill(
        now + used("1 a 100", period("11-01 12-01", late=True)),
        STEPS,
        CLOSED_OCTOBER,
        period("11-01 12-01", late=True),
        period("12-01 12-31"),
        invoices=[october, november],
    )
    assert december.lines == ()  # what is billed is billed: nothing is owed twice


def test_a_month_closed_in_parts_pays_its_tiers_and_flat_amounts_once():
    flat = {"type": "graduated", "tiers": [{"up_to": None, "unit_amount": "0.01",
                                            "flat_amount": "5"}]}  # fmt: skip
    for model in (GRADUATED, VOLUME, flat):
        prices = book(1, entry(1, "requests", "", model))
        first, rest = period("10-01 10-11"), period("10-11 11-01")
        early = bill(used("1 a 700", first), prices, first)
        closed = period("10-01 10-11", late=True)
        late = used("1 a 750", closed) + used("1 a 550", rest)
        second = bill(late, prices, closed, rest, invoices=[early])
        whole = bill(used("1 a 1300", OCTOBER), prices, OCTOBER)
        assert early.total_minor + second.total_minor == whole.total_minor


def test_a_minimum_of_a_price_is_due_once_its_month_is_over():
    prices = book(1, entry(1, "requests", "", {"type": "unit", "unit_amount": "0.01",
                                               "minimum_amount": "5"}))  # fmt: skip
    running = period("10-01 10-20")
    assert bill(used("1 a 100", running), prices, running).total_minor == 100
    assert bill(used("1 a 100", OCTOBER), prices, OCTOBER).total_minor == 500


def test_late_units_at_a_plain_price_are_a_line_of_their_own_where_the_cent_is_the_same():
    prices = book(1, entry(1, "requests", "", "0.01"))
    october = bill(used("1 a 7", OCTOBER), prices, OCTOBER)
    november = bill(
        used("1 a 9", CLOSED_OCTOBER), prices, CLOSED_OCTOBER, NOVEMBER, invoices=[october]
    )
    assert told(november) == "10-01 late usage e1 2 2"
    assert november.lines[0].explanation == "2 requests x $0.01 = $0.02"


def test_late_units_never_add_up_roundings():
    prices = book(1, entry(1, "requests", "", "0.005"))
    october = bill(used("1 a 1", OCTOBER), prices, OCTOBER)
    assert october.total_minor == 1  # half a cent
    november = bill(
        used("1 a 2", CLOSED_OCTOBER), prices, CLOSED_OCTOBER, NOVEMBER, invoices=[october]
    )
    # Two are one cent, and it was billed. Another half for itself would be a second cent.
    assert told(november) == "10-01 late adjustment e1 1 0"


def test_a_discount_and_bounds_are_lines_of_their_own_in_their_order():
    prices = book(1, entry(1, "requests", "", "0.01"))
    quantities = used("1 a 10000", OCTOBER, contract_id=contract().id)

    def agreed(**terms):
        return told(bill(quantities, prices, OCTOBER, contracts=[contract(**terms)]))

    usage = "10-01 usage e1 10000 10000"
    assert agreed() == usage
    assert agreed(discount_percent="12.5") == f"{usage}\n10-01 discount Discount 0 -1250"
    assert agreed(discount_percent="10", maximum_minor=8000) == table(f"""
        {usage}
        10-01 discount Discount 0 -1000
        10-01 maximum Maximum_spend 0 -1000
    """)
    assert agreed(discount_percent="50", minimum_minor=6000, commitment_minor=7500) == table(f"""
        {usage}
        10-01 discount Discount 0 -5000
        10-01 minimum Minimum_spend 0 1000
        10-01 commitment Commitment 0 1500
    """)


def test_what_is_missing_to_a_minimum_is_due_when_the_month_is_over_even_if_nothing_was_used():
    held = contract(minimum_minor=3000)
    assert bill([], {}, period("10-01 10-20"), contracts=[held]).lines == ()
    assert told(bill([], {}, OCTOBER, contracts=[held])) == "10-01 minimum Minimum_spend 0 3000"


@pytest.mark.parametrize(
    ("starts", "ends", "due"),
    [("10-01", "", 3100), ("10-17", "", 1500), ("10-01", "10-11", 1000), ("10-30", "11-15", 200)],
)
def test_a_month_held_in_part_has_that_part_of_the_minimum_by_the_day(starts, ends, due):
    held = contract(starts=starts, ends=ends, minimum_minor=3100)
    assert bill([], {}, OCTOBER, contracts=[held]).total_minor == due


def test_late_usage_of_a_month_with_a_minimum_takes_from_the_true_up():
    prices = book(1, entry(1, "requests", "", "0.01"))
    held = [contract(ends="11-01", minimum_minor=5000, discount_percent="10")]
    first = used("1 a 1000", OCTOBER, contract_id=held[0].id)
    october = bill(first, prices, OCTOBER, contracts=held)
    assert october.total_minor == 5000
    now = used("1 a 3000", CLOSED_OCTOBER, contract_id=held[0].id)
    november = bill(now, prices, CLOSED_OCTOBER, NOVEMBER, invoices=[october], contracts=held)
    assert told(november) == table("""
        10-01 late usage e1 2000 2000
        10-01 late discount Discount 0 -200
        10-01 late minimum Minimum_spend 0 -1800
    """)
    assert november.total_minor == 0


def test_a_contracts_entry_wins_over_the_books_unless_that_is_more_specific():
    prices = book(
        1,
        entry(1, "requests", "model=a", "0.02"),
        entry(2, "requests", "", "0.01"),
        entry(3, "requests", "model=c service_tier=standard", "0.03"),
    )
    held = contract()
    own = [
        entry(11, "requests", "model=a", "0.001", contract_id=held.id),
        entry(12, "requests", "model=c", "0.001", contract_id=held.id),
    ]
    rated = bill(
        used("1 a 1000\n1 b 1000\n1 c 1000", OCTOBER, contract_id=held.id),
        prices,
        OCTOBER,
        contracts=[contract(own=own)],
    )
    assert told(rated) == table("""
        10-01 usage e11 1000 100
        10-01 usage e2 1000 1000
        10-01 usage e3 1000 3000
    """)


@pytest.mark.parametrize(("currency", "amount"), [("JPY", 13), ("USD", 1250), ("KWD", 12500)])
def test_the_minor_unit_is_the_currencys(currency, amount):
    prices = book(1, entry(1, "requests", "", GRADUATED), currency=currency)
    rated = bill(used("1 a 1500", OCTOBER), prices, OCTOBER, currency=currency)
    assert rated.total_minor == amount


def test_a_declared_meter_may_have_fractions():
    prices = book(1, entry(1, "gpu_seconds", "", "0.05"), entry(2, "gpu_seconds", "region=eu", "1"))
    quantities = [
        Quantity(OCTOBER, "", "gpu_seconds", version(1), Decimal(units), dimensions=dimensions)
        for units, dimensions in (
            ("10.25", ()),
            ("0.75", (("region", "us"),)),
            ("2.5", (("region", "eu"),)),
        )
    ]
    assert told(bill(quantities, prices, OCTOBER)) == table("""
        10-01 usage e1 11.00 55
        10-01 usage e2 2.5 250
    """).replace("11.00", "11")


def test_usage_without_an_entry_and_less_than_was_billed_is_refused():
    with pytest.raises(UsageCannotBeRated, match="no price for this model"):
        rate(used("1 a 1", OCTOBER), book(1, entry(1, "requests", "model=b", "1")), "USD")
    october = bill(used("1 a 900", OCTOBER), STEPS, OCTOBER)
    with pytest.raises(UsageCannotBeRated, match="more was invoiced than was used"):
        bill(used("1 a 899", CLOSED_OCTOBER), STEPS, CLOSED_OCTOBER, NOVEMBER, invoices=[october])
