"""Every move from every status: the table of what an invoice allows, driven over HTTP.

Rows are statuses, columns the status after the move; `-` is refused with 400 and changes nothing.
The table is Stripe's page on status transitions, written down independently of the product's.
"""

from collections.abc import Callable
from typing import Any

import pytest
import stripe

from stripe_sandbox.invoice_moves import MOVES
from stripe_sandbox.invoices import STATUSES
from tests.stripe_sandbox.rig import Books

TABLE = """
from           finalize  pay   void  mark_uncollectible  delete   edit_lines     edit
draft          open      -     -     -                   deleted  draft          draft
open           -         paid  void  uncollectible       -        -              -
paid           -         -     -     -                   -        -              -
void           -         -     -     -                   -        -              -
uncollectible  -         paid  void  -                   -        -              -
"""

ROWS = [line.split() for line in TABLE.strip().splitlines()]
CASES = [
    (row[0], move, after)
    for row in ROWS[1:]
    for move, after in zip(ROWS[0][1:], row[1:], strict=True)
]

MAKE: dict[str, Callable[[stripe.StripeClient, str], Any]] = {
    "finalize": lambda c, i: c.v1.invoices.finalize_invoice(i),
    "pay": lambda c, i: c.v1.invoices.pay(i),
    "void": lambda c, i: c.v1.invoices.void_invoice(i),
    "mark_uncollectible": lambda c, i: c.v1.invoices.mark_uncollectible(i),
    "delete": lambda c, i: c.v1.invoices.delete(i),
    "edit_lines": lambda c, i: c.v1.invoices.add_lines(i, {"lines": [{"amount": 1}]}),
    "edit": lambda c, i: c.v1.invoices.update(i, {"description": "changed"}),
}


def test_the_table_covers_every_status_and_every_move():
    assert {row[0] for row in ROWS[1:]} == set(STATUSES)
    assert set(ROWS[0][1:]) == set(MOVES) == set(MAKE)


@pytest.mark.parametrize(("status", "move", "after"), CASES)
def test_an_invoice_moves_only_as_stripe_says(books: Books, status: str, move: str, after: str):
    invoice = books.in_status(status)
    client = books.client
    if after == "-":
        before = client.v1.invoices.retrieve(invoice).to_dict(for_json=True)
        told = books.events_about(invoice)
        with pytest.raises(stripe.InvalidRequestError) as refused:
            MAKE[move](client, invoice)
        assert refused.value.http_status == 400
        assert client.v1.invoices.retrieve(invoice).to_dict(for_json=True) == before
        assert books.events_about(invoice) == told
        return
    MAKE[move](client, invoice)
    if after == "deleted":
        with pytest.raises(stripe.InvalidRequestError) as gone:
            client.v1.invoices.retrieve(invoice)
        assert (gone.value.http_status, gone.value.code) == (404, "resource_missing")
        return
    assert client.v1.invoices.retrieve(invoice).status == after


@pytest.mark.parametrize(
    ("status", "event"),
    [
        ("open", "invoice.finalized"),
        ("paid", "invoice.payment_succeeded"),
        ("void", "invoice.voided"),
        ("uncollectible", "invoice.marked_uncollectible"),
    ],
)
def test_each_move_tells_its_event_once(books: Books, status: str, event: str):
    assert books.events_about(books.in_status(status)).count(event) == 1


@pytest.mark.parametrize("status", ["open", "paid", "void", "uncollectible"])
def test_metadata_stays_editable_for_ever(books: Books, status: str):
    invoice = books.in_status(status)
    kept = books.client.v1.invoices.update(invoice, {"metadata": {"seen": "yes"}})
    assert kept.metadata is not None
    assert kept.metadata["seen"] == "yes"


def test_voiding_cancels_the_payment_behind(books: Books):
    invoice = books.in_status("void")
    [link] = books.client.v1.invoice_payments.list({"invoice": invoice}).data
    assert link.status == "canceled"
    intent = books.client.v1.payment_intents.retrieve(str(link.payment.payment_intent))
    assert (intent.status, intent.cancellation_reason) == ("canceled", "void_invoice")
