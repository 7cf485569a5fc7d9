"""Acme promises 1,000.00 a month, from 10 February until 20 April 2023."""

import pytest

from tests.scenarios.months.story import on, table

pytestmark = pytest.mark.django_db

# Half a million input tokens are 1.00.
PRICES = """
    input_tokens   all  0.000002
    output_tokens  all  0
    requests       all  0
"""


def test_a_commitment_and_what_is_missing_to_it(begins):
    acme = begins("acme", "2023-02-01", PRICES)

    # 5 February: 100.00 before the contract, which no promise counts.
    acme.uses("2023-02-05", tokens_in=50_000_000)
    with on("2023-02-08"):
        acme.agrees("2023-02-10", commitment="1000", ends_at="2023-04-20")
    acme.uses("2023-02-15", tokens_in=150_000_000)

    # 20 February: an invoice in between. Nothing is missing yet: the month is not over.
    between = acme.closes("2023-02-20")
    assert acme.paper(between) == table("""
        02     input_tokens of tiny-lm, contract  150,000,000    300.00
        02     input_tokens of tiny-lm             50,000,000    100.00
        total                                                    400.00
    """)

    # 1 March: 19 of 28 days of 1,000.00 are 678.57; 300.00 and 100.00 were spent.
    acme.uses("2023-02-25", tokens_in=50_000_000)
    february = acme.closes("2023-03-01")
    assert acme.paper(february) == table("""
        02     input_tokens of tiny-lm, contract  50,000,000    100.00
        02     Commitment, contract 1                      -    278.57
        total                                                   378.57
    """)
    assert acme.books() == table("""
        receivable              778.57
        revenue:commitment     -278.57
        revenue:input_tokens   -500.00
    """)

    # 5 March: 50.00 of February arrive; so much less of it was missing.
    with on("2023-03-05"):
        acme.uses("2023-02-26", tokens_in=25_000_000)
    # March: more than was promised, and so no true-up.
    acme.uses("2023-03-10", tokens_in=650_000_000)
    march = acme.closes("2023-04-01")
    assert acme.paper(march) == table("""
        03       input_tokens of tiny-lm, contract  650,000,000  1300.00
        02 late  Commitment, contract 1                       -   -50.00
        02 late  input_tokens of tiny-lm, contract   25,000,000    50.00
        total                                                    1300.00
    """)

    # April: the contract ends as the 20th begins; what is used from then on counts for nothing.
    # 19 of 30 days of 1,000.00 are 633.33, and 200.00 were spent.
    acme.uses("2023-04-10", tokens_in=100_000_000)
    acme.uses("2023-04-20", tokens_in=10_000_000)
    april = acme.closes("2023-05-01")
    assert acme.paper(april) == table("""
        04     input_tokens of tiny-lm, contract  100,000,000    200.00
        04     input_tokens of tiny-lm             10,000,000     20.00
        04     Commitment, contract 1                       -    433.33
        total                                                    653.33
    """)
    assert acme.books() == table("""
        receivable             2731.90
        revenue:commitment     -661.90
        revenue:input_tokens  -2070.00
    """)
