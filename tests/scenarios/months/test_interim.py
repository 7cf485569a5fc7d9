"""Months that are invoiced before they are over: whatever happens, they cost what they cost."""

import pytest

from billing.invoicing.models import Invoice
from billing.invoicing.queries import upcoming_invoice
from billing.invoicing.taxation import assign_rates, create_rate
from tenants.scoping import tenant_scope
from tests.scenarios.months.story import on, table

pytestmark = pytest.mark.django_db

# Half a million input tokens are 1.00.
PRICES = """
    input_tokens   all  0.000002
    output_tokens  all  0
    requests       all  0
"""
# To a hundred requests each costs 1.00; one more, and all of them cost 0.50.
VOLUME = """
    input_tokens   all  graduated 1000000 at 0.00001, on at 0.000001
    output_tokens  all  0
    requests       all  volume 100 at 1, on at 0.5
"""


def taxed(story, percentage, mode="exclusive"):
    """VAT of so much, and no other, from now on."""
    rate = create_rate(name="VAT", percentage=percentage, mode=mode)
    with tenant_scope(story.tenant.id):
        assign_rates([rate.id])


def test_two_interim_invoices_and_the_rest_at_the_end_of_the_month(begins):
    acme = begins("acme", "2023-04-01", PRICES)
    acme.sets_threshold("100")

    # 5 April: 80.00. 7 April: 110.00, which is enough, once.
    acme.uses("2023-04-05", tokens_in=40_000_000)
    assert acme.looked_at("2023-04-05 12:00") is None
    acme.uses("2023-04-07", tokens_in=15_000_000)
    first = acme.looked_at("2023-04-07 12:00")
    assert acme.paper(first) == table("""
        04     input_tokens of tiny-lm  55,000,000  110.00
        total                                       110.00
    """)
    assert acme.looked_at("2023-04-07 12:00") is None
    assert acme.looked_at("2023-04-08") is None
    with on("2023-04-09"):
        acme.moves(first, "paid")
    # It is an advance: April is not over.
    assert acme.books() == table("""
        deferred_revenue  -110.00
        payments           110.00
    """)

    # 20 April: 230.00, of which 120.00 are on no invoice. Nobody begins to collect the second one.
    acme.uses("2023-04-20", tokens_in=60_000_000)
    second = acme.looked_at("2023-04-20 12:00")
    assert acme.paper(second) == table("""
        04     input_tokens of tiny-lm                                         115,000,000   230.00
        04     Already invoiced in ACME-000001, usage until 2023-04-07 12:00 UTC    -       -110.00
        total                                                                                120.00
    """)

    # 1 May: 250.00. The second interim invoice gets its number, for April's names it.
    acme.uses("2023-04-29", tokens_in=10_000_000)
    april = acme.closes("2023-05-01")
    assert acme.paper(april) == table("""
        04     input_tokens of tiny-lm                                         125,000,000   250.00
        04     Already invoiced in ACME-000001, usage until 2023-04-07 12:00 UTC    -       -110.00
        04     Already invoiced in ACME-000002, usage until 2023-04-20 12:00 UTC    -       -120.00
        total                                                                                 20.00
    """)
    with tenant_scope(acme.tenant.id):
        numbers = Invoice.objects.order_by("number").values_list("number", "kind", "status")
        assert list(numbers) == [
            ("ACME-000001", "interim", "paid"),
            ("ACME-000002", "interim", "open"),
            ("ACME-000003", "period", "open"),
        ]
    assert acme.books() == table("""
        payments               110.00
        receivable             140.00
        revenue:input_tokens  -250.00
    """)
    assert acme.replays() == [("04-01", True, "0.00")]

    # 3 May: 5.00 of April arrive. They are May's, and are no part of what is unbilled of May.
    with on("2023-05-03"):
        acme.uses("2023-04-30", tokens_in=2_500_000)
        acme.sets_threshold("5")
    assert acme.looked_at("2023-05-04") is None
    acme.uses("2023-05-05", tokens_in=2_500_000)
    interim = acme.looked_at("2023-05-06")
    assert acme.paper(interim) == table("""
        05     input_tokens of tiny-lm  2,500,000  5.00
        total                                      5.00
    """)
    may = acme.closes("2023-06-01")
    assert acme.paper(may) == table("""
        05       input_tokens of tiny-lm                                          2,500,000   5.00
        04 late  input_tokens of tiny-lm                                          2,500,000   5.00
        05       Already invoiced in ACME-000004, usage until 2023-05-06 00:00 UTC    -      -5.00
        total                                                                                 5.00
    """)
    assert acme.invoiced() == "260.00"
    assert {owed for _, _, owed in acme.replays()} == {"0.00"}


def test_tiers_that_are_crossed_and_a_volume_price_that_falls(begins):
    acme = begins("acme", "2023-04-01", VOLUME)
    acme.sets_threshold("50")
    # 1,500,000 tokens: 10.00 of the first tier, 0.50 of the second. 90 requests: 90.00.
    acme.uses("2023-04-05", requests=90, tokens_in=1_500_000)
    interim = acme.looked_at("2023-04-06")
    assert acme.paper(interim) == table("""
        04     input_tokens  1,500,000   10.50
        04     requests             90   90.00
        total                           100.50
    """)
    # 120 requests are 60.00: less than what was billed. There is nothing more to ask for.
    acme.uses("2023-04-10", requests=30, tokens_in=500_000)
    assert acme.looked_at("2023-04-11") is None
    april = acme.closes("2023-05-01")
    assert acme.paper(april) == table("""
        04     input_tokens                                                       2,000,000   11.00
        04     requests                                                                 120   60.00
        04     Already invoiced in ACME-000001, usage until 2023-04-06 00:00 UTC    -     -100.50
        total                                                                                -29.50
    """)
    assert acme.invoiced() == "71.00"
    assert acme.books() == table("""
        receivable              71.00
        revenue:input_tokens   -11.00
        revenue:requests       -60.00
    """)


def test_what_only_a_whole_month_owes_is_on_its_own_invoice(begins):
    acme = begins("acme", "2023-04-01", PRICES)
    acme.sets_threshold("100")
    acme.agrees("2023-04-01", discount_percent="10", minimum_spend="200", commitment="300")
    acme.uses("2023-04-05", tokens_in=60_000_000)
    # 120.00 less 10 %; nothing is missing to anything yet.
    interim = acme.looked_at("2023-04-06")
    assert acme.paper(interim) == table("""
        04     input_tokens of tiny-lm, contract  60,000,000  120.00
        04     Discount, contract 1                        -  -12.00
        total                                                 108.00
    """)
    april = acme.closes("2023-05-01")
    assert acme.paper(april) == table("""
        04     input_tokens of tiny-lm, contract                           60,000,000        120.00
        04     Discount, contract 1                                                 -        -12.00
        04     Minimum spend, contract 1                                            -         92.00
        04     Commitment, contract 1                                               -        100.00
        04     Already invoiced in ACME-000001, usage until 2023-04-06 00:00 UTC    -       -108.00
        total                                                                                192.00
    """)
    assert acme.invoiced() == "300.00"
    assert "receivable | 300.00" in acme.books()


def test_what_a_contract_that_ended_lacks_is_billed_at_the_end_of_the_month(begins):
    acme = begins("acme", "2023-04-01", PRICES)
    acme.sets_threshold("100")
    # 9 of 30 days of 1000.00 are 300.00.
    acme.agrees("2023-04-01", minimum_spend="1000", ends_at="2023-04-10")
    acme.uses("2023-04-05", tokens_in=60_000_000)
    assert acme.paper(acme.looked_at("2023-04-12"))[-1] == "total | 120.00"
    assert acme.looked_at("2023-04-13") is None
    assert acme.paper(acme.closes("2023-05-01"))[-1] == "total | 180.00"


def test_a_maximum_holds_for_all_invoices_of_a_month_together(begins):
    acme = begins("acme", "2023-04-01", PRICES)
    acme.sets_threshold("60")
    acme.agrees("2023-04-01", maximum_spend="100")
    totals = []
    for day in ("05", "10", "15"):
        acme.uses(f"2023-04-{day}", tokens_in=35_000_000)  # 70.00 each
        made = acme.looked_at(f"2023-04-{day} 12:00")
        totals.append(None if made is None else acme.paper(made)[-1])
    # 140.00 are 100.00, of which 30.00 are not billed: too little to ask for.
    assert totals == ["total | 70.00", None, None]
    assert acme.paper(acme.closes("2023-05-01"))[-1] == "total | 30.00"


def test_credit_stays_drawn_by_the_invoice_it_paid(begins):
    acme = begins("acme", "2023-04-01", PRICES)
    acme.sets_threshold("100")
    acme.gets_credit("welcome", "50.00", "promotional", expires="2023-04-15")
    acme.uses("2023-04-07", tokens_in=55_000_000)
    first = acme.looked_at("2023-04-08")
    assert acme.paper(first) == table("""
        04     input_tokens of tiny-lm      55,000,000  110.00
        04     Promotional credit: welcome           -  -50.00
        total                                            60.00
    """)
    # 20 April: 40.00 more credit, for one model alone. Of that model 110.00 are billed already, and
    # so it pays for the 2.00 that came since, and not for the other model's 8.00.
    with on("2023-04-20"):
        acme.gets_credit("sorry", "40.00", "promotional", models_only=("tiny-lm",))
    acme.uses("2023-04-25", tokens_in=1_000_000)
    acme.uses("2023-04-26", tokens_in=4_000_000, model="minilm")
    april = acme.closes("2023-05-01")
    assert acme.paper(april) == table("""
        04     input_tokens of minilm                                            4,000,000     8.00
        04     input_tokens of tiny-lm                                          56,000,000   112.00
        04     Already invoiced in ACME-000001, usage until 2023-04-08 00:00 UTC    -       -110.00
        04     Promotional credit: sorry                                            -         -2.00
        total                                                                                  8.00
    """)
    assert acme.credit() == table("sorry  38.00")
    assert acme.books() == table("""
        credits:promotional    -38.00
        promotions              90.00
        receivable              68.00
        revenue:input_tokens  -120.00
    """)


def falls_below_what_credit_paid(begins):
    """Of 100.00 that were billed on the 8th, credit paid 60.00; then the price falls to 0.50."""
    acme = begins("acme", "2023-04-01", VOLUME)
    taxed(acme, "10")
    acme.sets_threshold("100")
    acme.gets_credit("bought", "60.00", "purchased")
    acme.uses("2023-04-07", requests=100)
    interim = acme.looked_at("2023-04-08")
    assert acme.paper(interim)[-3:] == table("""
        04     Purchased credit: bought  -        -60.00
        tax    VAT 10 %                  on top    4.00
        total                                     44.00
    """)
    acme.uses("2023-04-20", requests=20)
    return acme, interim


def test_credit_that_paid_an_interim_invoice_comes_back_before_money(begins):
    acme, _ = falls_below_what_credit_paid(begins)
    with on("2023-05-01") as at, tenant_scope(acme.tenant.id):
        upcoming = upcoming_invoice(at)
    assert (upcoming.credit_minor, upcoming.total_minor) == (40_00, 0)
    april = acme.closes("2023-05-01")
    # 60.00 for all of April: 40.00 were paid with their tax, and 20.00 remain for credit to pay.
    assert acme.paper(april) == table("""
        04     requests                                                             120    60.00
        04     Already invoiced in ACME-000001, usage until 2023-04-08 00:00 UTC      -  -100.00
        04     Purchased credit: bought (given back of 2023-04, which costs less)     -    40.00
        tax    VAT 10 %                                                        on top    4.00
        tax    VAT 10 %, already invoiced in ACME-000001                       on top   -4.00
        total                                                                            0.00
    """)
    assert acme.credit() == table("bought  40.00")
    assert acme.books() == table("""
        credits:purchased   -40.00
        payments             60.00
        receivable           44.00
        revenue:requests    -60.00
        tax:VAT              -4.00
    """)


@pytest.mark.parametrize("order", ["interim first", "april first"])
def test_voided_afterwards_what_came_back_of_an_interim_invoice_is_not_lost(begins, order):
    acme, interim = falls_below_what_credit_paid(begins)
    april = acme.closes("2023-05-01")
    with on("2023-05-02"):
        for invoice in (interim, april) if order == "interim first" else (april, interim):
            acme.moves(invoice, "void")
    assert acme.credit() == table("bought  60.00")
    assert acme.books() == table("""
        credits:purchased   -60.00
        payments             60.00
    """)


@pytest.mark.parametrize("first_voided", ["interim", "april"])
def test_an_interim_invoice_that_is_voided_counts_as_invoiced(begins, first_voided):
    acme = begins("acme", "2023-04-01", PRICES)
    taxed(acme, "10", "inclusive")
    acme.sets_threshold("100")
    acme.uses("2023-04-07", tokens_in=55_000_000)
    interim = acme.looked_at("2023-04-08")
    if first_voided == "interim":
        with on("2023-04-09"):
            acme.moves(interim, "void")
        # A tenth of what is left of 110.00 is 10.00 of tax; the rest is revenue lost before earned.
        assert acme.books() == table("""
            deferred_revenue   -100.00
            revenue:interim     100.00
        """)
    acme.uses("2023-04-20", tokens_in=11_000_000)
    april = acme.closes("2023-05-01")
    assert acme.paper(april)[-1] == "total | 22.00"
    if first_voided == "april":
        with on("2023-05-02"):
            acme.moves(april, "void")
        # The interim invoice is owed still, and April's 22.00 are forgiven.
        assert acme.books() == table("""
            receivable             110.00
            revenue:interim       -100.00
            tax:VAT                -10.00
        """)
        with on("2023-05-02"):
            acme.moves(interim, "void")
        assert acme.books() == []
    else:
        assert acme.books() == table("""
            receivable              22.00
            revenue:input_tokens  -120.00
            revenue:interim        100.00
            tax:VAT                 -2.00
        """)


def test_a_tax_rate_that_changes_within_the_month(begins):
    acme = begins("acme", "2023-04-01", PRICES)
    taxed(acme, "19")
    acme.sets_threshold("100")
    acme.gets_credit("welcome", "0.50", "promotional")
    # 19 % of 110.01 less 0.50 are 20.8069.
    acme.uses("2023-04-07", tokens_in=55_005_000)
    first = acme.looked_at("2023-04-08")
    assert acme.paper(first) == table("""
        04     input_tokens of tiny-lm      55,005,000  110.01
        04     Promotional credit: welcome           -   -0.50
        tax    VAT 19 %                         on top   20.81
        total                                           130.32
    """)
    with on("2023-04-15"):
        taxed(acme, "16")
    # 16 % of 220.02 less 0.50 are 35.1232.
    acme.uses("2023-04-20", tokens_in=55_005_000)
    second = acme.looked_at("2023-04-20 12:00")
    assert acme.paper(second) == table("""
        04     input_tokens of tiny-lm                                          110,010,000  220.02
        04     Already invoiced in ACME-000001, usage until 2023-04-08 00:00 UTC    -       -110.01
        tax    VAT 16 %                                                        on top         35.12
        tax    VAT 19 %, already invoiced in ACME-000001                       on top        -20.81
        total                                                                                124.32
    """)
    # April's tax is 16 % of 250.00 less 0.50: 39.92, all in all.
    acme.uses("2023-04-25", tokens_in=14_990_000)
    april = acme.closes("2023-05-01")
    assert acme.paper(april) == table("""
        04     input_tokens of tiny-lm                                          125,000,000  250.00
        04     Already invoiced in ACME-000001, usage until 2023-04-08 00:00 UTC    -       -110.01
        04     Already invoiced in ACME-000002, usage until 2023-04-20 12:00 UTC    -       -110.01
        tax    VAT 16 %                                                        on top         39.92
        tax    VAT 19 %, already invoiced in ACME-000001                       on top        -20.81
        tax    VAT 16 %, already invoiced in ACME-000002                       on top        -35.12
        tax    VAT 19 %, already invoiced in ACME-000002                       on top         20.81
        total                                                                                 34.78
    """)
    assert acme.invoiced() == "289.42"  # 250.00 - 0.50 + 39.92
    assert acme.books() == table("""
        promotions               0.50
        receivable             289.42
        revenue:input_tokens  -250.00
        tax:VAT                -39.92
    """)
    # All of April's invoice goes back: each line with the tax that it bore there.
    assert acme.gives_back("rest", april) == "ACME-CN-000001 | 29.98 | 0.00 | 4.80 | 34.78"
    assert "tax:VAT | -35.12" in acme.books()


def test_yen_have_no_cents_and_a_period_is_closed_within_the_month(begins):
    tokyo = begins("tokyo", "2023-09-01", PRICES.replace("0.000002", "0.0003"), "JPY")
    tokyo.agrees("2023-09-01")
    tokyo.sets_threshold("1000")
    tokyo.uses("2023-09-02", tokens_in=3_335_000)  # 1,000.5
    interim = tokyo.looked_at("2023-09-03")
    assert tokyo.paper(interim)[-1] == "total | 1001"
    tokyo.uses("2023-09-04", tokens_in=1_000)
    between = tokyo.closes("2023-09-05")
    assert tokyo.paper(between)[-1] == "total | 0"
    tokyo.uses("2023-09-10", tokens_in=5_000_000)
    second = tokyo.looked_at("2023-09-11")
    assert tokyo.paper(second) == table("""
        09     input_tokens of tiny-lm, contract  5,000,000  1500
        total                                                1500
    """)
    tokyo.closes("2023-10-01")
    assert tokyo.invoiced() == "2501"
    assert tokyo.books() == table("""
        receivable             2501
        revenue:input_tokens  -2501
    """)
