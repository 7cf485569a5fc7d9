"""A record of a long run stays short, and leaves out nothing that is unlike what it has."""

import pytest

from tests.stripe_schema import recording
from tests.stripe_schema.recorded import shape_of

OURS = "019ab2c4-1111-7bbb-8ccc-abcdefabcdef"
LINE = {
    "method": "POST",
    "target": "/v1/invoices/in_1QabcDEF/add_lines",
    "body": f"lines%5B0%5D%5Bamount%5D=301&lines%5B0%5D%5Bmetadata%5D%5Bx%5D={OURS}",
    "status": 200,
    "headers": {"request-id": "req_1"},
    "answer": '{"id": "in_1QabcDEF", "amount": 301, "status": "open", "paid_at": null}',
}


@pytest.mark.parametrize(
    "change",
    [
        {"target": "/v1/invoices/in_9ZyxW/add_lines"},
        {"body": LINE["body"].replace("301", "7").replace("019ab2c4", "fbbbbbbb")},
        {"headers": {"request-id": "req_2"}},
        {"answer": LINE["answer"].replace("1QabcDEF", "ZyxW").replace("301", "7")},
    ],
)
def test_of_lines_that_differ_in_ids_and_numbers_one_is_kept(change):
    assert shape_of(LINE | change) == shape_of(LINE)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "GET"},
        {"status": 201},
        {"target": "/v1/invoices/in_1QabcDEF/remove_lines"},
        {"headers": {}},
        {"body": LINE["body"].replace("amount", "amounts")},
        {"body": LINE["body"].replace("301", "-301")},
        {"body": LINE["body"].replace("301", "3.01")},
        {"answer": LINE["answer"].replace("open", "paid")},
        {"answer": LINE["answer"].replace("amount", "total")},
        {"answer": LINE["answer"].replace("301", '"301"')},
        {"answer": LINE["answer"].replace("301", "-301")},
        {"answer": LINE["answer"].replace("null", "false")},
        {"answer": LINE["answer"].replace(', "paid_at": null', "")},
    ],
)
def test_whatever_else_differs_is_kept(change):
    assert shape_of(LINE | change) != shape_of(LINE)


def test_a_long_run_leaves_a_short_record(own_sandbox, tmp_path):
    arrivals = tmp_path / "arrivals"
    sandbox = own_sandbox("--each-shape-once", "--arrivals", str(arrivals))
    for n in range(20):
        made = sandbox.request("POST", "/v1/customers", {"name": f"Customer {n}"}).json["id"]
        sandbox.request("GET", f"/v1/customers/{made}")
    sandbox.request("POST", "/v1/customers", {"nickname": "Acme"})
    record = sandbox.data.with_suffix(recording.SUFFIX)
    kept = record.read_text().splitlines()
    assert len(kept) == 5  # ready, made, the event of that, read, and refused
    assert recording.complaints() == []
    came = [line.split(" ")[1:] for line in arrivals.read_text().splitlines()]
    assert len(came) == 41
    assert came[0] == ["POST", "/v1/customers"]
