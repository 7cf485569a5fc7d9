"""What Stripe could have answered and what not; a good answer is spoilt in one place at a time."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.stripe_sandbox.rig import Books, Sandbox
from tests.stripe_schema.exchange import installed

Answer = dict[str, Any]


@pytest.fixture
def invoice(sandbox: Sandbox, books: Books) -> Answer:
    """A paid one, with its payments and their intent inside."""
    wanted = "?expand[]=payments.data.payment.payment_intent&expand[]=customer"
    target = f"/v1/invoices/{books.in_status('paid')}{wanted}"
    answer: Answer = sandbox.request("GET", target).json
    return answer


def complaints(answer: Any, path: str = "/v1/invoices/in_1", status: int = 200) -> list[str]:
    return installed().check_response("GET", path, status, answer)


def test_a_good_answer_has_no_complaint(invoice: Answer):
    assert invoice["payments"]["data"][0]["payment"]["payment_intent"]["status"] == "succeeded"
    assert complaints(invoice) == []


INTENT = "payments.data[0].payment.payment_intent"


def _intent(invoice: Answer) -> Answer:
    intent: Answer = invoice["payments"]["data"][0]["payment"]["payment_intent"]
    return intent


SPOILT: dict[str, Callable[[Answer], object]] = {
    "amount_due is absent": lambda a: a.pop("amount_due"),
    "amount_due is null": lambda a: a.update(amount_due=None),
    "amount_due: 12.0 is no whole number": lambda a: a.update(amount_due=12.0),
    "amount_due: '12' is no whole number": lambda a: a.update(amount_due="12"),
    "amount_due: True is no whole number": lambda a: a.update(amount_due=True),
    "paid is not Stripe's": lambda a: a.update(paid=True),
    "charge is not Stripe's": lambda a: a.update(charge="ch_1"),
    "status: 'closed' is not one of Stripe's": lambda a: a.update(status="closed"),
    "object: 'bill' is not one of Stripe's": lambda a: a.update(object="bill"),
    "attempted: 2 is no boolean": lambda a: a.update(attempted=2),
    "metadata.uid: 1 is no text": lambda a: a["metadata"].update(uid=1),
    "total_taxes: {} is no array": lambda a: a.update(total_taxes={}),
    "status_transitions.sent_at is not Stripe's": lambda a: a["status_transitions"].update(
        sent_at=1
    ),
    "lines.object: 'page' is not one of Stripe's": lambda a: a["lines"].update(object="page"),
    "lines.has_more is absent": lambda a: a["lines"].pop("has_more"),
    "lines.total is not Stripe's": lambda a: a["lines"].update(total=1),
    "lines.data[0].amount is absent": lambda a: a["lines"]["data"][0].pop("amount"),
    "lines.data[0].quantity_decimal: '1E+3' is no plain decimal of at most 12 places": lambda a: a[
        "lines"
    ]["data"][0].update(quantity_decimal="1E+3"),
    "customer.emails is not Stripe's": lambda a: a["customer"].update(emails=[]),
    f"{INTENT}.status: 'done' is not one of Stripe's": lambda a: _intent(a).update(status="done"),
    f"{INTENT}.invoice is not Stripe's": lambda a: _intent(a).update(invoice="in_1"),
}


@pytest.mark.parametrize("says", SPOILT)
def test_what_is_wrong_is_named_with_its_place(invoice: Answer, says: str):
    before = copy.deepcopy(invoice)
    SPOILT[says](invoice)
    assert invoice != before
    assert complaints(invoice) == [says]


def test_lists_have_stripes_envelope():
    page: Answer = {"object": "list", "data": [], "has_more": False, "url": "/v1/invoices"}
    assert complaints(page, "/v1/invoices") == []
    assert complaints([], "/v1/invoices") == ["the answer: [] is no list object"]
    assert complaints({"data": []}, "/v1/invoices") == [
        "has_more is absent",
        "url is absent",
        "object is absent",
    ]
    found = {**page, "object": "search_result", "next_page": None, "total_count": 0}
    assert complaints(found, "/v1/invoices/search") == []
    assert complaints(page, "/v1/invoices/search") != []


def test_what_is_deleted_says_little():
    gone = {"id": "cus_1", "object": "customer", "deleted": True}
    assert complaints(gone, "/v1/customers/cus_1") == []
    assert complaints({**gone, "deleted": 1}, "/v1/customers/cus_1") != []
    assert complaints({**gone, "name": "A"}, "/v1/customers/cus_1") == ["name is not Stripe's"]
    assert "created is absent" in complaints({**gone, "deleted": None}, "/v1/customers/cus_1")


def test_errors_have_stripes_shape():
    error = {"type": "invalid_request_error", "message": "no", "code": "parameter_missing"}
    assert complaints({"error": error}, status=400) == []
    assert complaints({"detail": "no"}, status=400) == ["an error's body is {'error': {...}}"]
    assert complaints({"error": error | {"type": "oops"}}, status=400) == [
        "error.type: 'oops' is not one of Stripe's"
    ]
    assert complaints({"error": error | {"code": "invented"}}, status=400) == [
        "error.code: 'invented' is not one of Stripe's"
    ]
    assert complaints({"error": error | {"field": "x"}}, status=400) == [
        "error.field is not Stripe's"
    ]


def test_an_address_stripe_does_not_have_is_answered_404():
    error = {"error": {"type": "invalid_request_error", "message": "no"}}
    assert complaints(error, "/v1/ledgers", 404) == []
    assert complaints({}, "/v1/ledgers", 200) == ["answered 200 instead of 404"]
    assert complaints(error, "/v1/ledgers", 400) == ["answered 400 instead of 404"]


def test_an_event_is_looked_into(sandbox: Sandbox, books: Books):
    books.in_status("paid")
    events = sandbox.request("GET", "/v1/events?type=invoice.updated&limit=1").json["data"]
    [event] = events
    judge = installed().answers.of_event
    assert judge(event) == []
    event["data"]["object"]["paid"] = True
    event["data"]["previous_attributes"]["charge"] = None
    event["type"] = "invoice.settled"
    assert judge(event) == [
        "type: 'invoice.settled' is not one of Stripe's",
        "data.object.paid is not Stripe's",
        "data.previous_attributes.charge is not Stripe's",
    ]
    assert judge(event | {"data": {"object": {"object": "bill"}}})[-1] == (
        "data.object.object: 'bill' is not one of Stripe's"
    )


def test_a_thin_event_refers_to_its_object():
    refers_to = {"id": "in_1", "type": "invoice", "url": "/v1/invoices/in_1"}
    event = {
        "id": "evt_1",
        "object": "v2.core.event",
        "type": "v1.invoice.paid",
        "created": "2026-10-01T00:00:00.000Z",
        "livemode": False,
        "related_object": refers_to,
    }
    judge = installed().answers.of_event
    assert judge(event) == []
    assert judge(event | {"data": {}}) == ["data is not Stripe's"]
    assert judge(event | {"type": "v1.invoice.settled"}) == [
        "type: 'v1.invoice.settled' is not one of Stripe's"
    ]
