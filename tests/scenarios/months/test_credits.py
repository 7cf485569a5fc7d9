"""Acme's summer of 2023 on credit: what is given, what is bought, and what expires of it.

Of two grants the lower priority goes first, then the one that expires first, and what was given
before what was bought. A grant pays for a period whose last instant it is live at.
"""

import pytest

from tests.scenarios.months.story import on, table

pytestmark = pytest.mark.django_db

# Half a million input tokens are 1.00.
PRICES = """
    input_tokens   all  0.000002
    output_tokens  all  0
    requests       all  0
"""


def test_credit_is_drawn_in_its_order_expires_at_an_instant_and_comes_back(begins):
    acme = begins("acme", "2023-06-01", PRICES)

    # 1 June: a welcome, an apology for a rough start, a small pack and a large one.
    with on("2023-06-01"):
        acme.gets_credit("welcome", "20.00", "promotional", expires="2023-06-15 12:00")
        acme.gets_credit("apology", "5.00", "promotional", priority=0)
        acme.gets_credit("small pack", "30.00", "purchased", expires="2023-07-01")
        acme.gets_credit("large pack", "100.00", "purchased")
        assert acme.books() == table("""
            credits:promotional   -25.00
            credits:purchased    -130.00
            payments              130.00
            promotions             25.00
        """)

    # 10 June: 12.00 are used.
    acme.uses("2023-06-10", tokens_in=6_000_000)

    # 15 June: the welcome is live until noon, and not at noon.
    assert acme.credit_at("2023-06-15 11:59:59.999") == "155.00"
    assert acme.credit_at("2023-06-15 12:00") == "135.00"
    # An invoice up to noon: the period's last instant is before noon, and the welcome pays for it,
    # after the apology, which has the lower priority.
    noon = acme.closes("2023-06-15 12:00")
    assert acme.paper(noon) == table("""
        06     input_tokens of tiny-lm      6,000,000  12.00
        06     Promotional credit: apology          -  -5.00
        06     Promotional credit: welcome          -  -7.00
        total                                           0.00
    """)
    # What is left of the welcome was not needed: the promotion cost 12.00, not 25.00.
    assert acme.loses_expired_credit("2023-06-15 12:00") == 1
    assert acme.credit() == table("""
        large pack  100.00
        small pack   30.00
    """)
    assert acme.books() == table("""
        credits:purchased     -130.00
        payments               130.00
        promotions              12.00
        revenue:input_tokens   -12.00
    """)

    # The rest of June: 41.00. The small pack ends with June, and pays for June.
    acme.uses("2023-06-20", tokens_in=20_500_000)
    june = acme.closes("2023-07-01")
    assert acme.paper(june) == table("""
        06     input_tokens of tiny-lm       20,500,000   41.00
        06     Purchased credit: small pack           -  -30.00
        06     Purchased credit: large pack           -  -11.00
        total                                              0.00
    """)
    assert acme.loses_expired_credit("2023-07-01") == 0
    assert acme.books() == table("""
        credits:purchased      -89.00
        payments               130.00
        promotions              12.00
        revenue:input_tokens   -53.00
    """)

    # July: 10.00 more are bought, for July alone; 120.00 are used. 21.00 are to be paid.
    with on("2023-07-03"):
        acme.gets_credit("july pack", "10.00", "purchased", expires="2023-08-01")
    acme.uses("2023-07-10", tokens_in=60_000_000)
    july = acme.closes("2023-08-01")
    assert acme.paper(july) == table("""
        07     input_tokens of tiny-lm       60,000,000  120.00
        07     Purchased credit: july pack            -  -10.00
        07     Purchased credit: large pack           -  -89.00
        total                                             21.00
    """)
    assert acme.credit() == []
    assert acme.books() == table("""
        payments               140.00
        promotions              12.00
        receivable              21.00
        revenue:input_tokens  -173.00
    """)

    # 5 August: July was a bad month, and its invoice is voided. Both packs are as they were.
    with on("2023-08-05"):
        acme.moves(july, "void")
    assert acme.credit() == table("""
        july pack   10.00
        large pack  89.00
    """)
    assert acme.books() == table("""
        credits:purchased      -99.00
        payments               140.00
        promotions              12.00
        revenue:input_tokens   -53.00
    """)
    # But July's pack has expired since: bought and not used, it is earned.
    assert acme.credit_at("2023-08-05") == "89.00"
    assert acme.loses_expired_credit("2023-08-05") == 1
    assert acme.books() == table("""
        breakage               -10.00
        credits:purchased      -89.00
        payments               140.00
        promotions              12.00
        revenue:input_tokens   -53.00
    """)

    # August: 3.00. What was voided is not billed again.
    acme.uses("2023-08-10", tokens_in=1_500_000)
    august = acme.closes("2023-09-01")
    assert acme.paper(august) == table("""
        08     input_tokens of tiny-lm       1,500,000   3.00
        08     Purchased credit: large pack          -  -3.00
        total                                            0.00
    """)
    assert acme.credit() == table("large pack  86.00")
    assert acme.books() == table("""
        breakage               -10.00
        credits:purchased      -86.00
        payments               140.00
        promotions              12.00
        revenue:input_tokens   -56.00
    """)
