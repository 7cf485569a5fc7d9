"""February by its days: three contracts share one month of 29, and one of 28."""

from itertools import pairwise

import pytest

from tests.billing.world import ingest
from tests.scenarios.months.story import instant, on, table

pytestmark = pytest.mark.django_db

# Half a million input tokens are 1.00.
PRICES = """
    input_tokens   all  0.000002
    output_tokens  all  0
    requests       all  0
"""
# 290.00 a month were promised each time: of 29 days each is 10.00. A day's 1.00 are used every day,
# 200.00 more on the 14th, and 3.00 more in the last millisecond.
#
#     contract  days          2024: part  spent   missing   2023: part  spent   missing
#     1         1st to 9th         90.00    9.00    81.00        93.21    9.00    84.21
#     2         10th on           190.00  219.00        -       186.43  218.00        -
#     3         the last day       10.00    4.00     6.00        10.36    4.00     6.36
#               whole month       290.00                        290.00
EXPECTED = {
    2024: """
        02     input_tokens of tiny-lm, contract    4,500,000    9.00
        02     input_tokens of tiny-lm, contract  109,500,000  219.00
        02     input_tokens of tiny-lm, contract    2,000,000    4.00
        02     Commitment, contract 1                       -   81.00
        02     Commitment, contract 3                       -    6.00
        total                                                  319.00
    """,
    2023: """
        02     input_tokens of tiny-lm, contract    4,500,000    9.00
        02     input_tokens of tiny-lm, contract  109,000,000  218.00
        02     input_tokens of tiny-lm, contract    2,000,000    4.00
        02     Commitment, contract 1                       -   84.21
        02     Commitment, contract 3                       -    6.36
        total                                                  321.57
    """,
}
BOOKS = {
    2024: """
        receivable             319.00
        revenue:commitment     -87.00
        revenue:input_tokens  -232.00
    """,
    2023: """
        receivable             321.57
        revenue:commitment     -90.57
        revenue:input_tokens  -231.00
    """,
}


@pytest.mark.parametrize(("year", "days"), [(2024, 29), (2023, 28)])
def test_a_february_counts_its_days(begins, year, days):
    acme = begins("acme", f"{year}-02-01", PRICES)
    ends = [f"{year}-02-01", f"{year}-02-10", f"{year}-02-{days}", f"{year}-03-01"]
    for hour, (starts_at, ends_at) in enumerate(pairwise(ends)):
        with on(f"{year}-02-01 {hour:02}:00"):
            acme.agrees(starts_at, commitment="290", ends_at=ends_at)

    noons = [instant(f"{year}-02-{day:02} 12:00") for day in range(1, days + 1)]
    with on(f"{year}-02-{days} 12:00"):
        ingest(*(acme.event(noon, tokens_in=500_000) for noon in noons))
    acme.uses(f"{year}-02-14", tokens_in=100_000_000)
    # The last millisecond of the last day is February's; the next one is March's, and nobody's
    # contract's.
    acme.uses(f"{year}-02-{days} 23:59:59.999", tokens_in=1_500_000)
    acme.uses(f"{year}-03-01", tokens_in=250_000)

    february = acme.closes(f"{year}-03-01")
    assert acme.paper(february) == table(EXPECTED[year])
    assert acme.books() == table(BOOKS[year])
    march = acme.closes(f"{year}-04-01")
    assert acme.paper(march) == table("""
        03     input_tokens of tiny-lm  250,000  0.50
        total                                    0.50
    """)
