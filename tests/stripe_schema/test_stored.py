"""A sandbox's file, judged afterwards."""

from pathlib import Path
from typing import Any

from stripe_sandbox import idempotency
from stripe_sandbox.store import Store
from tests.stripe_sandbox.rig import Books, Sandbox
from tests.stripe_schema import stored


def test_what_a_sandbox_has_kept_is_judged(own_sandbox, tmp_path: Path):
    running: Sandbox = own_sandbox()
    books = Books(running)
    customer = books.customer()
    made = books.client.v1.invoices.create({"customer": customer}, {"idempotency_key": "draft"})
    invoice: dict[str, Any] = made.to_dict(for_json=True)
    [event, *_] = running.request("GET", "/v1/events?type=customer.created").json["data"]
    running.stop()
    assert stored.complaints(running.data) == []

    store = Store(tmp_path / "spoilt.sqlite3")
    event["data"]["object"]["paid"] = True
    store.insert(event, created=1)
    invoice.pop("total")
    for key, status, body in (("a", 200, invoice), ("b", 400, {"error": {"type": "oops"}})):
        answer = idempotency.Saved("req_1", status, body)
        idempotency.save(store, key, "print", answer, now=1)
    store.close()
    assert sorted(stored.complaints(tmp_path / "spoilt.sqlite3")) == [
        "answer None: error.type: 'oops' is not one of Stripe's",
        "answer invoice: total is absent",
        "event customer.created: data.object.paid is not Stripe's",
    ]
