"""Credit notes: what they do to the invoice, to the money, and where they stop."""

from typing import Any

import pytest
import stripe

from stripe_sandbox.rounding import quotient
from tests.stripe_sandbox.rig import Books

# Asked of a note on an invoice of 12.00, and the note's and the invoice's amounts after it.
TABLE = """
status  asked                              pre   post  due   left  pre_notes  post_notes  ends
open    amount=500                         500   0     700   700   500        0           open
open    amount=1200                        1200  0     0     0     1200       0           paid
paid    amount=500,refund_amount=500       0     500   1200  0     0          500         paid
paid    amount=1200,credit_amount=1200     0     1200  1200  0     0          1200        paid
paid    amount=500,out_of_band_amount=500  0     500   1200  0     0          500         paid
paid    amount=3,refund_amount=1,credit_amount=1,out_of_band_amount=1  0 3 1200 0 0 3     paid
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()][1:]

# Asked of a note, and what the refusal says.
REFUSED = """
open   amount=1201                        exceeds the amount that can still be credited
open   amount=500,credit_amount=500       must equal the post payment
paid   amount=500                         must equal the post payment
paid   amount=500,refund_amount=400       must equal the post payment
paid   amount=1201,refund_amount=1201     exceeds the amount that can still be credited
paid   memo=x                             You must pass one of
draft  amount=500                         open, paid and uncollectible invoices only
void   amount=500                         open, paid and uncollectible invoices only
"""
REFUSALS = [line.split(None, 2) for line in REFUSED.strip().splitlines()]


def _asked(text: str) -> dict[str, Any]:
    pairs = [pair.split("=") for pair in text.split(",")]
    return {name: int(value) if value.isdigit() else value for name, value in pairs}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} {row[1]}")
def test_a_note_lowers_what_is_owed_first_and_moves_the_rest(books: Books, row: list[str]):
    status, asked, *figures, ends = row
    invoice = books.in_status(status)
    notes = books.client.v1.credit_notes
    params = {"invoice": invoice, **_asked(asked)}
    preview = notes.preview(params)  # type: ignore[arg-type]
    assert notes.list({"invoice": invoice}).data == []
    note = notes.create(params)  # type: ignore[arg-type]
    assert preview.total == note.total == params["amount"]
    after = books.client.v1.invoices.retrieve(invoice)
    assert after.status == ends
    assert [int(figure) for figure in figures] == [
        note.pre_payment_amount,
        note.post_payment_amount,
        after.amount_due,
        after.amount_remaining,
        after.pre_payment_credit_notes_amount,
        after.post_payment_credit_notes_amount,
    ]
    assert note.number == f"{after.number}-CN-01"
    assert "credit_note.created" in books.events_about(note.id)
    customer = books.client.v1.customers.retrieve(str(after.customer))
    assert customer.balance == -params.get("credit_amount", 0)
    refunded = [each.refund for each in note.refunds]
    assert len(refunded) == (1 if "refund_amount" in params else 0)
    for each in refunded:
        assert books.client.v1.refunds.retrieve(each).amount == params["refund_amount"]


@pytest.mark.parametrize(("status", "asked", "says"), REFUSALS)
def test_a_note_that_does_not_add_up_changes_nothing(
    books: Books, status: str, asked: str, says: str
):
    invoice = books.in_status(status)
    before = books.client.v1.invoices.retrieve(invoice).to_dict(for_json=True)
    for act in (books.client.v1.credit_notes.create, books.client.v1.credit_notes.preview):
        with pytest.raises(stripe.InvalidRequestError, match=says):
            act({"invoice": invoice, **_asked(asked)})  # type: ignore[arg-type]
    assert books.client.v1.invoices.retrieve(invoice).to_dict(for_json=True) == before
    assert books.client.v1.credit_notes.list({"invoice": invoice}).data == []


def test_lines_are_credited_up_to_what_is_left_of_them(books: Books):
    invoice = books.draft(books.customer(), 1000, 200)
    client = books.client.v1
    client.invoices.finalize_invoice(invoice)
    first, second = client.invoices.line_items.list(invoice).data
    line: Any = {"type": "invoice_line_item", "invoice_line_item": first.id, "amount": 600}
    extra: Any = {
        "type": "custom_line_item", "description": "Sorry", "quantity": 2, "unit_amount": 50,
    }  # fmt: skip
    note = client.credit_notes.create({"invoice": invoice, "lines": [line, extra]})
    assert (note.subtotal, note.total) == (700, 700)
    lines = client.credit_notes.line_items.list(note.id)
    assert [each.amount for each in lines.data] == [600, 100]
    assert lines.data[0].invoice_line_item == first.id
    with pytest.raises(stripe.InvalidRequestError, match=r"left of the invoice line item \(400\)"):
        client.credit_notes.create({"invoice": invoice, "lines": [line]})
    by_quantity: Any = {
        "type": "invoice_line_item", "invoice_line_item": second.id, "quantity": 1,
    }  # fmt: skip
    preview = client.credit_notes.preview_lines.list({"invoice": invoice, "lines": [by_quantity]})
    assert [each.amount for each in preview.data] == [200]
    client.credit_notes.void_credit_note(note.id)
    client.credit_notes.create({"invoice": invoice, "lines": [{**line, "amount": 1000}]})


def test_a_voided_note_gives_back_what_it_took_and_only_while_nothing_was_paid(books: Books):
    invoice = books.in_status("open")
    notes = books.client.v1.credit_notes
    note = notes.create({"invoice": invoice, "amount": 500})
    voided = notes.void_credit_note(note.id)
    assert (voided.status, voided.voided_at is not None) == ("void", True)
    assert books.events_about(note.id) == ["credit_note.created", "credit_note.voided"]
    back = books.client.v1.invoices.retrieve(invoice)
    assert (back.amount_due, back.pre_payment_credit_notes_amount) == (1200, 0)
    again = notes.create({"invoice": invoice, "amount": 1000})
    assert again.number.endswith("-CN-02")
    books.client.v1.invoices.pay(invoice)
    [link] = books.client.v1.invoice_payments.list({"invoice": invoice}).data
    assert link.amount_paid == 200
    for each in (note, again):
        with pytest.raises(stripe.InvalidRequestError):
            notes.void_credit_note(each.id)


def test_refunds_without_a_note_lower_what_can_be_credited_until_a_note_takes_them(books: Books):
    invoice = books.in_status("paid")
    client = books.client.v1
    [link] = client.invoice_payments.list({"invoice": invoice}).data
    intent = str(link.payment.payment_intent)
    refund = client.refunds.create({"payment_intent": intent, "amount": 700})
    with pytest.raises(stripe.InvalidRequestError, match=r"credited on this invoice \(500\)"):
        client.credit_notes.create({"invoice": invoice, "amount": 501, "credit_amount": 501})
    note = client.credit_notes.create(
        {"invoice": invoice, "amount": 700, "refunds": [{"refund": refund.id}]}
    )
    assert [(each.refund, each.amount_refunded) for each in note.refunds] == [(refund.id, 700)]
    with pytest.raises(stripe.InvalidRequestError, match="0 is left of it"):
        client.credit_notes.create(
            {
                "invoice": invoice,
                "amount": 100,
                "refunds": [{"refund": refund.id, "amount_refunded": 100}],
            }
        )
    client.credit_notes.create({"invoice": invoice, "amount": 500, "refund_amount": 500})
    assert client.invoices.retrieve(invoice).post_payment_credit_notes_amount == 1200
    with pytest.raises(stripe.InvalidRequestError, match=r"\(0\)"):
        client.credit_notes.create({"invoice": invoice, "amount": 1, "out_of_band_amount": 1})


def test_balance_transactions_tell_every_change_and_add_up(books: Books):
    client = books.client.v1
    customer = books.customer(balance=-300)
    made = client.customers.balance_transactions.create(
        customer, {"amount": -200, "currency": "usd", "description": "Goodwill"}
    )
    assert (made.type, made.ending_balance) == ("adjustment", -500)
    client.customers.update(customer, {"balance": -400})
    applied = books.draft(customer, 1000)
    client.invoices.finalize_invoice(applied)
    tiny = books.draft(customer, 20)
    client.invoices.finalize_invoice(tiny)
    client.invoices.void_invoice(applied)
    rows = client.customers.balance_transactions.list(customer).data
    assert [(row.type, row.amount) for row in reversed(rows)] == [
        ("initial", -300),
        ("adjustment", -200),
        ("adjustment", 100),
        ("applied_to_invoice", 400),
        ("invoice_too_small", 20),
        ("unapplied_from_invoice", -400),
    ]
    assert sum(row.amount for row in rows) == client.customers.retrieve(customer).balance
    [about] = client.customers.balance_transactions.list(customer, {"invoice": tiny}).data
    assert client.customers.balance_transactions.retrieve(customer, about.id).amount == 20
    with pytest.raises(stripe.InvalidRequestError, match="combine currencies"):
        client.customers.balance_transactions.create(customer, {"amount": 1, "currency": "eur"})


@pytest.mark.parametrize(
    ("numerator", "denominator", "whole"),
    [(5, 2, 3), (-5, 2, -3), (7, 3, 2), (-7, 3, -2), (0, 7, 0), (4, -8, -1), (1, 3, 0)],
)
def test_quotients_round_half_away_from_zero(numerator: int, denominator: int, whole: int):
    assert quotient(numerator, denominator) == whole
