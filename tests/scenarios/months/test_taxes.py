"""The same April 2023 twice: with 19 % on top of its prices, and with 20 % in them.

Then all of it is given back in parts. Taxes of parts that are rounded each for itself would miss a
cent; the last part absorbs it, so that all notes together are the invoice.
"""

import pytest

from billing.invoicing.taxation import assign_rates, create_rate, exempt
from tenants.scoping import tenant_scope
from tests.scenarios.months.story import on, table

pytestmark = pytest.mark.django_db

PRICES = """
    input_tokens   all  0.000002
    output_tokens  all  0.000006
    requests       all  0.01
"""


def taxed(story, percentage, mode):
    """VAT of so much from now on."""
    rate = create_rate(name="VAT", percentage=percentage, mode=mode)
    with tenant_scope(story.tenant.id):
        assign_rates([rate.id])


def test_tax_on_top_and_a_paid_invoice_given_back_in_three_notes(begins):
    acme = begins("acme", "2023-04-01", PRICES)
    with on("2023-04-01"):
        taxed(acme, "19", "exclusive")
    acme.uses("2023-04-10", tokens_in=5_000_000, tokens_out=555_000)

    # 19 % of 13.34 are 2.5346. Of them input's 10.00 bear 1.90, output's 3.33 0.63.
    april = acme.closes("2023-05-01")
    assert acme.paper(april) == table("""
        04     input_tokens of tiny-lm   5,000,000  10.00
        04     output_tokens of tiny-lm    555,000   3.33
        04     requests of tiny-lm               1   0.01
        tax    VAT 19 %                     on top   2.53
        total                                       15.87
    """)
    with on("2023-05-05"):
        acme.moves(april, "paid")
    assert acme.books() == table("""
        payments                15.87
        revenue:input_tokens   -10.00
        revenue:output_tokens   -3.33
        revenue:requests        -0.01
        tax:VAT                 -2.53
    """)

    # Input's 1.90 in three: 0.6327, 1.2654 and 1.90 so far are 0.63, 1.27 and 1.90; each third for
    # itself would have been 0.63. The last note is what is left of everything.
    with on("2023-05-10"):
        notes = [
            acme.gives_back("first", april, line=1, amount="3.33"),
            acme.gives_back("second", april, line=1, amount="3.33"),
        ]
        assert acme.books() == table("""
            payments                15.87
            refunds                 -7.93
            revenue:input_tokens    -3.34
            revenue:output_tokens   -3.33
            revenue:requests        -0.01
            tax:VAT                 -1.26
        """)
        notes.append(acme.gives_back("rest", april))
    assert notes == table("""
        ACME-CN-000001   3.33  0.00  0.63   3.96
        ACME-CN-000002   3.33  0.00  0.64   3.97
        ACME-CN-000003   6.68  0.00  1.26   7.94
    """)
    # 3.96 + 3.97 + 7.94 = 15.87, which is to be paid back, and nothing is earned or owed.
    assert acme.books() == table("""
        payments   15.87
        refunds   -15.87
    """)

    # May: somebody noticed that the tax is the customer's to account for.
    with on("2023-05-20"), tenant_scope(acme.tenant.id):
        exempt("reverse_charge", "VAT id DE136695976")
    acme.uses("2023-05-21", tokens_in=1_000_000, requests=5)
    may = acme.closes("2023-06-01")
    assert acme.paper(may) == table("""
        05     input_tokens of tiny-lm  1,000,000  2.00
        05     requests of tiny-lm              5  0.05
        total                                      2.05
    """)
    assert may.tax_note == (
        "Reverse charge: tax is to be accounted for by the recipient. VAT id DE136695976"
    )


def test_tax_in_prices_and_an_open_invoice_given_back_in_two_notes(begins):
    acme = begins("acme", "2023-04-01", PRICES)
    with on("2023-04-01"):
        taxed(acme, "20", "inclusive")
    acme.uses("2023-04-10", tokens_in=5_000_000, tokens_out=555_000)

    # A sixth of 13.34 is 2.2233: 1.67 in input's 10.00, 0.55 in output's 3.33.
    april = acme.closes("2023-05-01")
    assert acme.paper(april) == table("""
        04     input_tokens of tiny-lm   5,000,000  10.00
        04     output_tokens of tiny-lm    555,000   3.33
        04     requests of tiny-lm               1   0.01
        tax    VAT 20 %                   included   2.22
        total                                       13.34
    """)
    assert acme.books() == table("""
        receivable              13.34
        revenue:input_tokens    -8.33
        revenue:output_tokens   -2.78
        revenue:requests        -0.01
        tax:VAT                 -2.22
    """)

    # Half of input: 0.835 of its 1.67 are 0.84. What is left of it carries 0.83.
    with on("2023-05-03"):
        notes = [acme.gives_back("half of input", april, line=1, amount="5.00")]
        assert acme.books() == table("""
            receivable               8.34
            revenue:input_tokens    -4.17
            revenue:output_tokens   -2.78
            revenue:requests        -0.01
            tax:VAT                 -1.38
        """)
        notes.append(acme.gives_back("rest", april))
    assert notes == table("""
        ACME-CN-000001   5.00  0.84  0.00   5.00
        ACME-CN-000002   8.34  1.38  0.00   8.34
    """)
    assert acme.books() == []
