"""Charges behind payments, money given back, and money taken back by the holder."""

from typing import Any

import pytest
import stripe

from tests.stripe_sandbox.rig import Books


def _charge(books: Books, card: str = "pm_card_visa") -> stripe.Charge:
    customer = books.customer(card)
    invoice = books.draft(customer, 1200)
    books.client.v1.invoices.finalize_invoice(invoice)
    books.client.v1.invoices.pay(invoice)
    [charge] = books.client.v1.charges.list({"customer": customer}).data
    return charge


def test_a_payment_leaves_its_charge(books: Books):
    charge = _charge(books)
    assert (charge.status, charge.amount, charge.paid) == ("succeeded", 1200, True)
    intent = books.client.v1.payment_intents.retrieve(
        str(charge.payment_intent), {"expand": ["latest_charge"]}
    )
    assert intent.latest_charge.id == charge.id  # type: ignore[union-attr]
    assert books.events_about(charge.id) == ["charge.succeeded"]


def test_a_decline_leaves_its_charge_too(books: Books):
    customer = books.customer("pm_card_chargeCustomerFail")
    invoice = books.draft(customer, 1200)
    books.client.v1.invoices.finalize_invoice(invoice)
    with pytest.raises(stripe.CardError):
        books.client.v1.invoices.pay(invoice)
    [charge] = books.client.v1.charges.list({"customer": customer}).data
    assert (charge.status, charge.paid, charge.failure_code) == ("failed", False, "card_declined")
    assert charge.outcome.type == "issuer_declined"
    with pytest.raises(stripe.InvalidRequestError):
        books.client.v1.refunds.create({"charge": charge.id})


def test_refunds_end_where_the_charge_ends(books: Books):
    refunds = books.client.v1.refunds
    charge = _charge(books)
    part = refunds.create({"charge": charge.id, "amount": 200, "metadata": {"why": "x"}})
    assert (part.status, part.amount, part.metadata["why"]) == ("succeeded", 200, "x")
    with pytest.raises(stripe.InvalidRequestError, match=r"unrefunded amount on charge \(1000\)"):
        refunds.create({"charge": charge.id, "amount": 1001})
    rest = refunds.create({"payment_intent": str(charge.payment_intent)})
    assert rest.amount == 1000
    with pytest.raises(stripe.InvalidRequestError) as done:
        refunds.create({"charge": charge.id})
    assert done.value.code == "charge_already_refunded"
    after = books.client.v1.charges.retrieve(charge.id, {"expand": ["refunds"]})
    assert (after.amount_refunded, after.refunded) == (1200, True)
    assert after.refunds is not None
    assert [each.id for each in after.refunds.data] == [rest.id, part.id]
    assert [each.id for each in refunds.list({"charge": charge.id}).data] == [rest.id, part.id]
    assert books.events_about(charge.id) == ["charge.succeeded"] + ["charge.refunded"] * 2


@pytest.mark.parametrize(
    ("evidence", "submit", "status"),
    [
        ("winning_evidence", True, "won"),
        ("losing_evidence", True, "lost"),
        ("a receipt", True, "under_review"),
        ("winning_evidence", False, "needs_response"),
    ],
)
def test_evidence_decides_a_dispute(books: Books, evidence: str, submit: bool, status: str):
    charge = _charge(books, "pm_card_createDispute")
    assert charge.disputed is True
    disputes = books.client.v1.disputes
    [opened] = disputes.list({"charge": charge.id}).data
    assert (opened.status, opened.amount) == ("needs_response", 1200)
    after: Any = disputes.update(
        opened.id, {"evidence": {"uncategorized_text": evidence}, "submit": submit}
    )
    assert after.status == status
    told = books.events_about(opened.id)
    assert told[:2] == ["charge.dispute.created", "charge.dispute.funds_withdrawn"]
    assert ("charge.dispute.closed" in told) is (status in ("won", "lost"))
    assert ("charge.dispute.funds_reinstated" in told) is (status == "won")


def _moved(books: Books, dispute_id: str) -> list[tuple[int, int, str]]:
    """(amount, fee, reporting category) of what a dispute moved, the same wherever it is asked."""
    inside = books.client.v1.disputes.retrieve(dispute_id).balance_transactions
    listed = books.client.v1.balance_transactions.list({"source": dispute_id, "type": "adjustment"})
    assert [each.id for each in inside] == [each.id for each in reversed(listed.data)]
    assert all(each.net == each.amount - each.fee for each in listed.data)
    for each in inside:
        one = books.client.v1.balance_transactions.retrieve(each.id, {"expand": ["source"]})
        assert one.source.id == dispute_id  # type: ignore[union-attr]
    return [(each.amount, each.fee, each.reporting_category) for each in inside]


def test_a_dispute_takes_its_amount_and_a_fee_and_gives_back_the_amount(books: Books):
    charge, control = _charge(books), books.sandbox.control
    first = control(f"/charges/{charge.id}/dispute", {"amount": 200})["id"]
    assert _moved(books, first) == [(-200, 1500, "dispute")]
    second = control(f"/charges/{charge.id}/dispute", {"moves_money": False})["id"]
    assert books.client.v1.disputes.retrieve(second).amount == 1000
    with pytest.raises(AssertionError, match="is left to be disputed"):
        control(f"/charges/{charge.id}/dispute", {})
    assert _moved(books, second) == []
    control(f"/disputes/{second}/funds", {"move": "withdraw", "fee": 0})
    with pytest.raises(AssertionError, match="withdrawn already"):
        control(f"/disputes/{second}/funds", {"move": "withdraw"})
    control(f"/disputes/{second}", {"status": "won", "moves_money": False})
    assert _moved(books, second) == [(-1000, 0, "dispute")]
    control(f"/disputes/{second}/funds", {"move": "reinstate", "amount": 400})
    with pytest.raises(AssertionError, match="600 can be reinstated"):
        control(f"/disputes/{second}/funds", {"move": "reinstate", "amount": 601})
    control(f"/disputes/{second}/funds", {"move": "reinstate", "fee": -10})
    assert _moved(books, second)[1:] == [
        (400, 0, "dispute_reversal"),
        (600, -10, "dispute_reversal"),
    ]
    # What it has won back may be disputed again.
    assert control(f"/charges/{charge.id}/dispute", {})["amount"] == 1000


def test_an_inquiry_takes_nothing_until_it_is_a_dispute(books: Books):
    charge, control = _charge(books), books.sandbox.control
    asked = control(f"/charges/{charge.id}/dispute", {"inquiry": True})["id"]
    disputes = books.client.v1.disputes
    opened = disputes.retrieve(asked)
    assert (opened.status, opened.is_charge_refundable) == ("warning_needs_response", True)
    assert books.client.v1.charges.retrieve(charge.id).disputed is False
    assert books.client.v1.refunds.create({"charge": charge.id, "amount": 1}).status == "succeeded"
    answered = disputes.update(asked, {"evidence": {"uncategorized_text": "hello"}})
    assert answered.status == "warning_under_review"
    with pytest.raises(AssertionError, match="does not go from"):
        control(f"/disputes/{asked}", {"status": "won"})
    control(f"/disputes/{asked}", {"status": "needs_response"})
    assert disputes.retrieve(asked).is_charge_refundable is False
    assert _moved(books, asked) == [(-1200, 1500, "dispute")]
    assert books.client.v1.charges.retrieve(charge.id).disputed is True


def test_giving_in_loses_a_dispute_once_and_no_refund_follows(books: Books):
    charge = _charge(books, "pm_card_createDispute")
    disputes = books.client.v1.disputes
    [opened] = disputes.list({"payment_intent": str(charge.payment_intent)}).data
    with pytest.raises(stripe.InvalidRequestError) as refused:
        books.client.v1.refunds.create({"charge": charge.id})
    assert refused.value.code == "charge_disputed"
    assert disputes.close(opened.id).status == "lost"
    with pytest.raises(stripe.InvalidRequestError, match="already closed"):
        disputes.close(opened.id)
