"""Months of 2023 that credit paid, and that cost less than was thought once late usage is in.

A thousand requests of a month are 0.01 each; more make all of them 0.005, more than two thousand
0.001. What credit paid comes back as credit; only what was paid in money comes back as money, and
only with it the tax it bore.
"""

import pytest

from billing.invoicing.queries import upcoming_invoice
from billing.invoicing.taxation import assign_rates, create_rate
from tenants.scoping import tenant_scope
from tests.scenarios.months.story import on, table

pytestmark = pytest.mark.django_db

PRICES = """
    input_tokens   all  0
    output_tokens  all  0
    requests       all  volume 1000 at 0.01, 2000 at 0.005, on at 0.001
"""


def begun(begins, **credit):
    """Acme, with 19 % on top of prices, and credit from 1 March on by name."""
    acme = begins("acme", "2023-03-01", PRICES)
    with on("2023-03-01"):
        rate = create_rate(name="VAT", percentage="19", mode="exclusive")
        with tenant_scope(acme.tenant.id):
            assign_rates([rate.id])
        for name, (amount, kind, *expires) in credit.items():
            acme.gets_credit(name, amount, kind, *expires)
    return acme


def late(acme, when, requests):
    """So many requests of 20 March become known then."""
    with on(when):
        acme.uses("2023-03-20", requests=requests)


def test_what_credit_paid_comes_back_as_credit_however_often_the_month_is_corrected(begins):
    acme = begun(begins, welcome=("20.00", "promotional"))
    acme.uses("2023-03-10", requests=900)
    march = acme.closes("2023-04-01")
    assert acme.paper(march) == table(
        """
        03     requests of tiny-lm              900   9.00
        03     Promotional credit: welcome        -  -9.00
        tax    VAT 19 %                      on top   0.00
        total                                         0.00
    """.replace("requests of tiny-lm ", "requests            ")
    )

    # Down: 1,200 are 6.00. Nothing was paid, so nothing is paid back, and no tax either.
    late(acme, "2023-04-05", 300)
    april = acme.closes("2023-05-01")
    assert acme.paper(april) == table("""
        03 late  requests                                                                300  -3.00
        03 late  Promotional credit: welcome (given back of 2023-03, which costs less)     -   3.00
        tax      VAT 19 %                                                             on top   0.00
        total                                                                                  0.00
    """)
    assert acme.credit() == table("welcome  14.00")

    # Up: 2,000 are 10.00, of which credit pays 4.00 more.
    late(acme, "2023-05-05", 800)
    may = acme.closes("2023-06-01")
    assert acme.paper(may)[-1] == "total | 0.00"
    assert acme.credit() == table("welcome  10.00")

    # Down twice: 3,000 are 3.00, 4,000 are 4.00 and so the second is up again.
    late(acme, "2023-06-05", 1000)
    june = acme.closes("2023-07-01")
    assert acme.paper(june)[-1] == "total | 0.00"
    assert acme.credit() == table("welcome  17.00")
    late(acme, "2023-07-05", 1000)
    acme.closes("2023-08-01")
    assert acme.credit() == table("welcome  16.00")

    # In all 4.00 were used, and the promotion cost that.
    assert acme.books() == table("""
        credits:promotional  -16.00
        promotions            20.00
        revenue:requests      -4.00
    """)


def test_the_half_that_was_paid_comes_back_after_the_half_that_credit_paid(begins):
    acme = begun(begins, half=("4.50", "purchased"))
    acme.uses("2023-03-10", requests=900)
    march = acme.closes("2023-04-01")
    # 4.50 are left, and 19 % of them are 0.855.
    assert acme.paper(march)[-2:] == table("""
        tax    VAT 19 %  on top  0.86
        total                    5.36
    """)
    with on("2023-04-03"):
        acme.moves(march, "paid")

    # 2,100 are 2.10, 6.90 less: 4.50 of it is credit, 2.40 is money with 0.456 of tax.
    late(acme, "2023-04-05", 1200)
    april = acme.closes("2023-05-01")
    assert acme.paper(april) == table("""
        03 late  requests                                                            1,200  -6.90
        03 late  Purchased credit: half (given back of 2023-03, which costs less)        -   4.50
        tax      VAT 19 %                                                           on top  -0.46
        total                                                                               -2.86
    """)
    assert acme.credit() == table("half  4.50")
    assert acme.books() == table("""
        credits:purchased  -4.50
        payments            9.86
        receivable         -2.86
        revenue:requests   -2.10
        tax:VAT            -0.40
    """)


def test_what_comes_back_pays_for_the_running_month_unless_it_has_expired(begins):
    acme = begun(
        begins,
        spring=("4.00", "promotional", "2023-04-15"),
        lasting=("20.00", "promotional"),
    )
    acme.uses("2023-03-10", requests=900)
    acme.closes("2023-04-01")  # spring 4.00, lasting 5.00
    assert acme.loses_expired_credit("2023-04-20") == 0
    late(acme, "2023-04-20", 1200)  # 6.90 less: lasting 5.00 and of spring 1.90
    acme.uses("2023-04-21", requests=1000)
    with on("2023-04-30"), tenant_scope(acme.tenant.id):
        upcoming = upcoming_invoice()
    april = acme.closes("2023-05-01")
    paper = acme.paper(april)
    assert paper == table("""
        04       requests                                                            1,000  10.00
        03 late  requests                                                            1,200  -6.90
        03 late  Promotional credit: lasting (given back of 2023-03, which costs less)   -   5.00
        03 late  Promotional credit: spring (given back of 2023-03, which costs less)    -   1.90
        04       Promotional credit: lasting                                             -  -10.00
        tax      VAT 19 %                                                           on top   0.00
        total                                                                                0.00
    """)
    # It is what was to be expected.
    assert [acme.text(each.amount_minor) for each in upcoming.lines] == [
        row.rpartition(" | ")[2] for row in paper[:5]
    ]
    assert upcoming.total_minor == 0
    assert acme.credit() == table("""
        lasting  10.00
        spring    1.90
    """)
    # Spring is over: what came back of it is written off, and was a promotion nobody needed.
    assert acme.loses_expired_credit("2023-05-01") == 1
    assert acme.books() == table("""
        credits:promotional  -10.00
        promotions            22.10
        revenue:requests     -12.10
    """)


# March is forgiven, and 3.00 of April's 5.00 were paid by the credit that came back of March.
# Or April is forgiven: March is 6.00, of which 1.50 are credit's; 4.50 and their tax are owed.
AFTER_ONE = {
    "march": """
        credits:promotional  -1.50
        promotions            4.50
        receivable            2.38
        revenue:requests     -5.00
        tax:VAT              -0.38
    """,
    "april": """
        credits:promotional  -3.00
        promotions            4.50
        receivable            5.36
        revenue:requests     -6.00
        tax:VAT              -0.86
    """,
}


@pytest.mark.parametrize("first", ["march", "april"])
def test_voided_afterwards_the_credit_stays_with_the_customer_and_nobody_owes_anything(
    begins, first
):
    acme = begun(begins, half=("4.50", "promotional"))
    acme.uses("2023-03-10", requests=900)
    march = acme.closes("2023-04-01")
    late(acme, "2023-04-05", 300)
    acme.uses("2023-04-10", requests=500)
    april = acme.closes("2023-05-01")  # 5.00 of April, 3.00 less of March, which pay for April
    assert acme.paper(april)[-1] == "total | 2.38"
    invoices = {"march": march, "april": april}
    with on("2023-05-05"):
        acme.moves(invoices.pop(first), "void")
    assert acme.books() == table(AFTER_ONE[first])
    with on("2023-05-06"):
        acme.moves(*invoices.values(), "void")
    assert "receivable" not in " ".join(acme.books())
    assert acme.credit() == table("half  4.50")
    assert acme.books() == table("""
        credits:promotional  -4.50
        promotions            4.50
    """)
