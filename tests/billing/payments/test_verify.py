"""Every difference between ours and theirs is named; agreement is silence."""

from dataclasses import replace

import pytest

from billing.payments.provider import LineOrder, ProviderInvoice, ProviderLine
from billing.payments.verify import Expected, differences
from tests.billing.world import utc

LINES = [
    LineOrder("a", "first", 100, utc(10, 1), utc(11, 1)),
    LineOrder("b", "second", 201, utc(10, 1), utc(11, 1)),
]
OURS = Expected("cus_1", "USD", 301, "digest", LINES)
INVOICE = ProviderInvoice(
    provider_invoice_id="in_1",
    our_invoice_id="i",
    digest="digest",
    customer_id="cus_1",
    status="draft",
    currency="USD",
    subtotal_minor=301,
    total_minor=301,
    amount_due_minor=301,
    amount_paid_minor=0,
    starting_balance_minor=0,
    ending_balance_minor=None,
    attempts=0,
    is_attempted=False,
    is_live=False,
    number="",
    hosted_url="",
    paid_at=None,
)
A, B = ProviderLine("a", 100, "USD", "first"), ProviderLine("b", 201, "USD", "second")


def test_the_same_agrees_in_any_order():
    assert differences(OURS, INVOICE, [B, A]) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"customer_id": "cus_2"}, "customer: ours cus_1, theirs cus_2"),
        ({"currency": "EUR"}, "currency: ours USD, theirs EUR"),
        ({"subtotal_minor": 300}, "subtotal: ours 301, theirs 300"),
        ({"total_minor": 302}, "total: ours 301, theirs 302"),
        ({"digest": ""}, "digest: ours digest, theirs "),
    ],
)
def test_each_fact_of_the_invoice_is_compared(changed, said):
    assert differences(OURS, replace(INVOICE, **changed), [A, B]) == [said]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([A], ["number of lines: ours 2, theirs 1", "line b (second) is missing there"]),
        (
            [replace(A, amount_minor=101), replace(B, amount_minor=200)],
            ["line a: ours 100 USD, theirs 101 USD", "line b: ours 201 USD, theirs 200 USD"],
        ),
        ([replace(A, currency="EUR"), B], ["line a: ours 100 USD, theirs 100 EUR"]),
        ([A, B, B], ["number of lines: ours 2, theirs 3"]),
        (
            [A, B, ProviderLine("", 0, "USD", "gift")],
            ["number of lines: ours 2, theirs 3", "line (no uid) (gift) is there and not ours"],
        ),
    ],
)
def test_each_line_is_compared_even_where_the_total_agrees(lines, said):
    assert differences(OURS, INVOICE, lines) == said
