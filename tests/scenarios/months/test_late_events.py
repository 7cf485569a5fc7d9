"""A gateway's disk comes back, twice: what was used in a closed month is owed by the difference."""

import pytest

from tests.scenarios.months.story import on, table

pytestmark = pytest.mark.django_db

# A thousand requests cost a cent each; with one more, all of them cost half of it.
PRICES = """
    input_tokens   all  0.000002
    output_tokens  all  0
    requests       all  volume 1000 at 0.01, on at 0.005
"""


def test_late_events_reprice_a_volume_and_give_money_back(begins):
    acme = begins("acme", "2023-06-01", PRICES)

    # June: 900 x 0.01 and 1,000,000 x 0.000002.
    acme.uses("2023-06-10", requests=900, tokens_in=1_000_000)
    june = acme.closes("2023-07-01")
    assert acme.paper(june) == table("""
        06     input_tokens of tiny-lm  1,000,000     2.00
        06     requests                       900     9.00
        total                                        11.00
    """)

    # 3 July: events of June's last millisecond arrive. June had 1,200 requests: all of them at
    # 0.005 are 6.00, and 9.00 were billed.
    with on("2023-07-03"):
        acme.uses("2023-06-30 23:59:59.999", requests=300, tokens_in=250_000)
        assert acme.replays() == [("06-01", False, "-2.50")]
    acme.uses("2023-07-08", requests=400)
    july = acme.closes("2023-08-01")
    assert acme.paper(july) == table("""
        07       requests                     400     4.00
        06 late  input_tokens of tiny-lm  250,000     0.50
        06 late  requests                     300    -3.00
        total                                         1.50
    """)
    assert acme.books() == table("""
        receivable              12.50
        revenue:input_tokens    -2.50
        revenue:requests       -10.00
    """)

    # 2 August: the rest of that disk. June: 1,300 x 0.005 = 6.50, of which 9.00 - 3.00 were billed.
    # July: 1,100 x 0.005 = 5.50, of which 4.00 were.
    with on("2023-08-02"):
        acme.uses("2023-06-11", requests=100)
        acme.uses("2023-07-09", requests=700)
    # 20 August: a thousand requests are still in the first tier: 10.00.
    acme.uses("2023-08-20", requests=1_000)
    august = acme.closes("2023-09-01")
    assert acme.paper(august) == table("""
        08       requests  1,000    10.00
        06 late  requests    100     0.50
        07 late  requests    700     1.50
        total                       12.00
    """)

    # 2 September: one request of August. 1,001 x 0.005 = 5.005, which is 5.01 and not 10.00: all
    # that September has to say is that money goes back.
    with on("2023-09-02"):
        acme.uses("2023-08-21", requests=1)
    september = acme.closes("2023-10-01")
    assert acme.paper(september) == table("""
        08 late  requests      1    -4.99
        total                       -4.99
    """)

    # October: nothing is used, nothing is late, nothing is owed once more.
    assert acme.closes("2023-11-01") is None

    # All invoices together are what everything costs: 6.50 + 2.50 + 5.50 + 5.01.
    assert acme.invoiced() == "19.51"
    assert acme.books() == table("""
        receivable              19.51
        revenue:input_tokens    -2.50
        revenue:requests       -17.01
    """)
    assert {owed for _, _, owed in acme.replays()} == {"0.00"}
