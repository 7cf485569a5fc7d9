"""The report of what is never tried, on a record made by hand."""

import json
from typing import Any

from tests.stripe_schema.coverage import report
from tests.stripe_schema.exchange import Exchange

GONE = {"id": "cus_1", "object": "customer", "deleted": True}
UNKNOWN = {"type": "invalid_request_error", "code": "parameter_unknown", "message": "no"}


def exchange(method: str, target: str, body: str, status: int, answer: Any) -> Exchange:
    return Exchange(method, target, body, status, {}, json.dumps(answer))


def test_what_was_done_is_not_listed_and_what_was_not_is():
    line = {"id": "il_1", "object": "line_item", "amount": 5, "description": None, "metadata": {}}
    invoice = {"id": "in_1", "object": "invoice", "lines": {"object": "list", "data": [line]}}
    lines = "lines[0][amount]=5&lines[0][metadata][uid]=a"
    said = report(
        [
            exchange("DELETE", "/v1/customers/cus_1", "", 200, GONE),
            exchange("POST", "/v1/invoices/in_1/add_lines", lines, 200, invoice),
            exchange("POST", "/v1/invoices", "tax=1", 400, {"error": UNKNOWN | {"param": "tax"}}),
            exchange("POST", "/v1/invoices", "issuer[type]=self", 400,
                     {"error": UNKNOWN | {"param": "issuer"}}),
            exchange("GET", "/v1/nothing", "", 404, {"error": {}}),
        ]
    )  # fmt: skip
    assert "  DELETE /v1/customers/{customer}" not in said
    assert "  POST /v1/invoices" in said  # refused is not answered
    add = "  POST /v1/invoices/{invoice}/add_lines: lines"
    assert not {add, f"{add}[][amount]", f"{add}[][metadata]"} & set(said)
    assert f"{add}[][description]" in said
    assert "parameters of Stripe's refused as unknown: 1" in said
    assert "  POST /v1/invoices: issuer" in said
    [of_lines] = [each for each in said if each.startswith("  InvoiceLineItem: ")]
    assert "description" in of_lines
    assert "amount," not in of_lines
