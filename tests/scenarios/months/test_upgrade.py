"""Acme pays list prices until 16 April 2023, and from then on by a contract with tiers."""

import pytest

from tests.scenarios.months.story import on, table

pytestmark = pytest.mark.django_db

LIST_PRICES = """
    input_tokens   all  0.000002
    output_tokens  all  0.000006
    requests       all  0.01
"""
CONTRACT = """
    output_tokens  all  graduated 1000000 at 0.000005, 3000000 at 0.000003 + 2, on at 0.000001
    requests       all  0
"""


def test_an_upgrade_within_a_month(begins):
    acme = begins("acme", "2023-04-01", LIST_PRICES)

    # 3 April: the first day of work.
    acme.uses("2023-04-03", tokens_in=600_000, tokens_out=100_000, requests=40)

    # 10 April: they sign. From the 16th on output is cheaper the more there is of it, requests are
    # free, a tenth is off everything, and a month owes 60.00 at least.
    with on("2023-04-10"):
        acme.agrees("2023-04-16", CONTRACT, discount_percent="10", minimum_spend="60")

    # 15 April: the last millisecond is still at list prices; the next one is the contract's.
    acme.uses("2023-04-15 23:59:59.999", tokens_out=50_000)
    acme.uses("2023-04-16", tokens_out=1_000_000)  # all of the first tier, and nothing beyond

    # 20 April: half a million more, at the second tier, whose 2.00 are due now.
    acme.uses("2023-04-20", tokens_in=250_000, tokens_out=500_000, requests=20)

    # 1 May: April is invoiced. Before the contract: 600,000 x 0.000002, 150,000 x 0.000006 and
    # 41 x 0.01. By the contract: 250,000 x 0.000002, which is the book's price, and
    # 5.00 + 1.50 + 2.00 of output. Of these 9.00 a tenth is off; the contract held for 15 of 30
    # days, so 30.00 are owed at least, and 30.00 - 8.10 are missing.
    april = acme.closes("2023-05-01")
    assert acme.paper(april) == table("""
        04     input_tokens of tiny-lm, contract    250,000     0.50
        04     input_tokens of tiny-lm              600,000     1.20
        04     output_tokens of tiny-lm             150,000     0.90
        04     requests of tiny-lm                       41     0.41
        04     output_tokens, contract            1,500,000     8.50
        04     Discount, contract 1                       -    -0.90
        04     Minimum spend, contract 1                  -    21.90
        total                                                  32.51
    """)
    assert acme.books() == table("""
        receivable               32.51
        revenue:discount          0.90
        revenue:input_tokens     -1.70
        revenue:minimum         -21.90
        revenue:output_tokens    -9.40
        revenue:requests         -0.41
    """)

    # 5 May: they pay.
    with on("2023-05-05"):
        acme.moves(april, "paid")

    # May, the first whole month: a busy one. Tiers began anew: 1,000,000 x 0.000005 +
    # 2,000,000 x 0.000003 + 2.00 + 1,000,000 x 0.000001 are 14.00. 74.00 less a tenth is more than
    # the minimum.
    acme.uses("2023-05-10", tokens_in=30_000_000, tokens_out=2_500_000, requests=7_000)
    acme.uses("2023-05-31 23:59:59.999", tokens_out=1_500_000)
    may = acme.closes("2023-06-01")
    assert acme.paper(may) == table("""
        05     input_tokens of tiny-lm, contract  30,000,000    60.00
        05     output_tokens, contract             4,000,000    14.00
        05     Discount, contract 1                        -    -7.40
        total                                                   66.60
    """)
    assert acme.books() == table("""
        payments                 32.51
        receivable               66.60
        revenue:discount          8.30
        revenue:input_tokens    -61.70
        revenue:minimum         -21.90
        revenue:output_tokens   -23.40
        revenue:requests         -0.41
    """)
    assert acme.replays() == [("04-01", True, "0.00"), ("05-01", True, "0.00")]
