"""A currency without a part to its unit, and one with a thousand parts: September 2023."""

import pytest

from billing.invoicing.taxation import assign_rates, create_rate
from tenants.scoping import tenant_scope
from tests.scenarios.months.story import on, table

pytestmark = pytest.mark.django_db

YEN = """
    input_tokens   all  0.15
    output_tokens  all  graduated 100 at 0.5, on at 0.25
    requests       all  package 10 at 7
"""
DINARS = """
    input_tokens   all  0.0000125
    output_tokens  all  volume 10000 at 0.00005, on at 0.00004
    requests       all  0.0005
"""


def test_a_month_in_yen(begins):
    # Prices in Japan have the tax in them.
    tokyo = begins("tokyo", "2023-09-01", YEN, "JPY")
    with on("2023-09-01"):
        vat = create_rate(name="JCT", percentage="10", mode="inclusive", country="JP")
        with tenant_scope(tokyo.tenant.id):
            assign_rates([vat.id])
        tokyo.agrees("2023-09-01")

    # 5 September: 1.5 yen are 2; 100 x 0.5 + 1 x 0.25 = 50.25 are 50; a package that was begun
    # is 7.
    tokyo.uses("2023-09-05", tokens_in=10, tokens_out=101)

    # From the 16th on 1,001 yen a month are promised: for 15 of 30 days 500.5, which are 501.
    with on("2023-09-10"):
        tokyo.agrees("2023-09-16", commitment="1001")
    # 20 September, tiers begin anew: 150.45, 50 + 50 and two packages.
    tokyo.uses("2023-09-20", tokens_in=1_003, tokens_out=300, requests=11)

    # 150 + 100 + 14 = 264 were spent of 501. An eleventh of the total is the tax in it: 50.909.
    september = tokyo.closes("2023-10-01")
    assert tokyo.paper(september) == table("""
        09     input_tokens of tiny-lm, contract     10    2
        09     input_tokens of tiny-lm, contract  1,003  150
        09     output_tokens, contract              101   50
        09     output_tokens, contract              300  100
        09     requests, contract                     1    7
        09     requests, contract                    11   14
        09     Commitment, contract 2                 -  237
        tax    JCT 10 %                        included   51
        total                                            560
    """)
    # The 51 are taken out of what was earned, by largest remainder: of requests' 21 are 1.9125 tax,
    # of input's 152 13.84, of output's 150 13.66, and of the commitment's 237 21.58, which has the
    # smallest part to lose.
    assert tokyo.books() == table("""
        receivable              560
        revenue:commitment     -216
        revenue:input_tokens   -138
        revenue:output_tokens  -136
        revenue:requests        -19
        tax:JCT                 -51
    """)


def test_two_months_in_dinars(begins):
    # A thousand fils are a dinar.
    kuwait = begins("kuwait", "2023-09-01", DINARS, "KWD")
    with on("2023-09-01"):
        levy = create_rate(name="Levy", percentage="5", mode="exclusive", country="KW")
        with tenant_scope(kuwait.tenant.id):
            assign_rates([levy.id])
        kuwait.agrees("2023-09-01")
        kuwait.gets_credit("welcome", "0.100", "promotional")

    # 12.5 fils are 13; 10,001 x 0.00004 = 0.40004; 1.5 fils are 2. 0.415 less 0.100 of credit are
    # 0.315, and 5 % of these 0.01575.
    kuwait.uses("2023-09-05", tokens_in=1_000, tokens_out=10_001, requests=3)
    september = kuwait.closes("2023-10-01")
    assert kuwait.paper(september) == table("""
        09     input_tokens of tiny-lm, contract   1,000   0.013
        09     requests of tiny-lm, contract           3   0.002
        09     output_tokens, contract            10,001   0.400
        09     Promotional credit: welcome             -  -0.100
        tax    Levy 5 %                           on top   0.016
        total                                              0.331
    """)
    assert kuwait.books() == table("""
        promotions              0.100
        receivable              0.331
        revenue:input_tokens   -0.013
        revenue:output_tokens  -0.400
        revenue:requests       -0.002
        tax:Levy               -0.016
    """)

    # 2 October: as many input tokens of September again. 2,000 are 0.025, of which 0.013 were
    # billed: the fils that was rounded up is not owed twice.
    with on("2023-10-02"):
        kuwait.uses("2023-09-06", tokens_in=1_000, requests=0)
    october = kuwait.closes("2023-11-01")
    assert kuwait.paper(october) == table("""
        09 late  input_tokens of tiny-lm, contract  1,000  0.012
        tax      Levy 5 %                          on top  0.001
        total                                              0.013
    """)
    assert kuwait.books() == table("""
        promotions              0.100
        receivable              0.344
        revenue:input_tokens   -0.025
        revenue:output_tokens  -0.400
        revenue:requests       -0.002
        tax:Levy               -0.017
    """)
