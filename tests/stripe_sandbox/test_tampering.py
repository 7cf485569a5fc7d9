"""What is changed behind everybody's back is what is answered from then on, and nobody is told."""

import pytest

from tests.stripe_sandbox.rig import Books, Sandbox


def test_an_object_is_altered_doubled_and_removed_without_an_event(sandbox: Sandbox, books: Books):
    v1, customer = books.client.v1, books.customer()
    events = v1.events.list({"limit": 1}).data[0].id
    before = sandbox.control(f"/objects/{customer}", {"balance": -7, "name": "Other"})
    assert before["balance"] == 0
    assert (v1.customers.retrieve(customer).balance, v1.customers.retrieve(customer).name) == (
        -7,
        "Other",
    )
    copy = sandbox.control(f"/objects/{customer}/double")["id"]
    assert copy.startswith("cus_")
    assert v1.customers.retrieve(copy).balance == -7
    sandbox.control(f"/objects/{copy}", method="DELETE")
    assert copy not in [each.id for each in v1.customers.list({"limit": 100}).data]
    assert sandbox.request("GET", f"/v1/customers/{copy}").status == 404
    assert v1.events.list({"limit": 1}).data[0].id == events
    page = sandbox.request("GET", f"/objects/{customer}", key=None)
    assert (page.status, "&quot;balance&quot;: -7" in page.text) == (200, True)
    assert "_" not in [name[0] for name in v1.customers.retrieve(customer).to_dict()]
    assert sandbox.request("GET", f"/objects/{copy}", key=None).status == 404


@pytest.mark.parametrize("member", ["id", "object", "_prefix", "colour"])
def test_what_an_object_does_not_have_is_not_altered(sandbox: Sandbox, books: Books, member: str):
    with pytest.raises(AssertionError, match="no member"):
        sandbox.control(f"/objects/{books.customer()}", {member: "x"})
    with pytest.raises(AssertionError, match="No such"):
        sandbox.control("/objects/cus_none", {"name": "x"})
