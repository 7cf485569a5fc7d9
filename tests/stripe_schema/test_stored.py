"""A sandbox's file, judged afterwards."""

import json
import sqlite3

from tests.stripe_sandbox.rig import Books, Sandbox
from tests.stripe_schema import stored


def test_what_a_sandbox_has_kept_is_judged(own_sandbox):
    running: Sandbox = own_sandbox()
    books = Books(running)
    customer = books.customer()
    options = {"idempotency_key": "draft"}
    books.client.v1.invoices.create({"customer": customer}, options)  # type: ignore[arg-type]
    running.stop()
    assert stored.complaints(running.data) == []
    connection = sqlite3.connect(running.data)
    with connection:
        connection.execute("UPDATE object SET body = json_set(body, '$.data.object.paid', 1)"
                           " WHERE kind = 'event' AND label = 'customer.created'")  # fmt: skip
        connection.execute("UPDATE idempotent_result SET body = json_remove(body, '$.total')")
        error = json.dumps({"error": {"type": "oops"}})
        connection.execute("INSERT INTO idempotent_result VALUES ('k', '', '', 400, ?, 0)", [error])
    connection.close()
    assert sorted(stored.complaints(running.data)) == [
        "answer None: error.type: 'oops' is not one of Stripe's",
        "answer invoice: total is absent",
        "event customer.created: data.object.paid is not Stripe's",
    ]
