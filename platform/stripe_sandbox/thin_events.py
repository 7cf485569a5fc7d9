"""Events in their thin form, as `GET /v2/core/events/{id}` shows them: what happened to what.

The same events as under `/v1/events`, named with Stripe's prefix (`v1.invoice.paid`); the object
itself is to be fetched by whoever cares.
"""

import datetime

from stripe_sandbox.call import Call
from stripe_sandbox.params import Takes
from stripe_sandbox.store import Document

RETRIEVE = Takes()

_PATHS = {
    "billing_portal.configuration": "billing_portal/configurations",
    "billing_portal.session": "billing_portal/sessions",
    "checkout.session": "checkout/sessions",
    "invoiceitem": "invoiceitems",
    "test_helpers.test_clock": "test_helpers/test_clocks",
}


def retrieve(call: Call) -> Document:
    event = call.in_path("event")
    about = event["data"]["object"]
    at = datetime.datetime.fromtimestamp(event["created"], datetime.UTC)
    path = _PATHS.get(about["object"], f"{about['object']}s")
    asked = event["request"]
    return {
        "id": event["id"],
        "object": "v2.core.event",
        "context": None,
        "created": f"{at:%Y-%m-%dT%H:%M:%S.000Z}",
        "livemode": False,
        "reason": None
        if asked["id"] is None
        else {
            "type": "request",
            "request": {"id": asked["id"], "idempotency_key": asked["idempotency_key"]},
        },
        "related_object": {
            "id": about["id"],
            "type": about["object"],
            "url": f"/v1/{path}/{about['id']}",
        },
        "snapshot_event": event["id"],
        "type": f"v1.{event['type']}",
    }
