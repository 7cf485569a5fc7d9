"""What is refused, and in which words: doors, unknown and missing parameters, limits of lines."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import stripe

from tests.stripe_sandbox.rig import KEY, Books, Sandbox


@pytest.mark.parametrize("prefix", ["sk_live_", "rk_live_"])
def test_live_keys_are_turned_away_in_plain_words_and_never_logged(sandbox: Sandbox, prefix: str):
    key = prefix + "51Nabcdefghijklmnop"
    with pytest.raises(stripe.AuthenticationError, match="you sent a LIVE key") as refused:
        sandbox.client(key).v1.customers.list()
    assert refused.value.http_status == 401
    assert "51Nabc" not in str(refused.value)
    assert "51Nabc" not in sandbox.log.read_text()


@pytest.mark.parametrize("key", ["pk_test_123", "whatever"])
def test_other_keys_are_401(sandbox: Sandbox, key: str):
    with pytest.raises(stripe.AuthenticationError, match="Invalid API Key"):
        sandbox.client(key).v1.customers.list()


def test_no_key_is_401_and_basic_auth_works(sandbox: Sandbox):
    assert sandbox.request("GET", "/v1/customers", key=None).status == 401
    basic = {"Authorization": "Basic c2tfdGVzdF94Og=="}  # sk_test_x:
    assert sandbox.request("GET", "/v1/customers", headers=basic, key=None).status == 200


def test_a_sandbox_with_a_key_accepts_only_that_one(own_sandbox):
    running: Sandbox = own_sandbox("--key", KEY)
    assert running.request("GET", "/v1/customers").status == 200
    assert running.request("GET", "/v1/customers", key="sk_test_other").status == 401


def test_another_api_version_is_refused_aloud(sandbox: Sandbox):
    answer = sandbox.request("GET", "/v1/customers", headers={"Stripe-Version": "2024-06-20"})
    assert answer.status == 400
    assert "2026-10-28.endive" in answer.error["message"]


def test_names_of_other_machines_are_refused(sandbox: Sandbox):
    for path in ("/v1/customers", "/", "/i/acct_sandbox/test_x"):
        assert sandbox.request("GET", path, headers={"Host": "rebound.example"}).status == 403


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--host", "0.0.0.0"), "loopback only"),
        (("--host", "192.168.1.2"), "loopback only"),
        (("--key", "sk_live_51Nabc"), "refusing --key"),
    ],
)
def test_it_refuses_to_start_where_it_should_not(
    tmp_path: Path, arguments: tuple[str, str], says: str
):
    data = tmp_path / "stripe.sqlite3"
    done = subprocess.run(
        [sys.executable, "-m", "stripe_sandbox", "--data", str(data), "--port", "0", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2
    assert says in done.stderr
    assert "51Nabc" not in done.stderr
    assert not data.exists()


def test_the_data_file_is_readable_by_its_owner_only(sandbox: Sandbox):
    for path in sandbox.data.parent.glob("stripe.sqlite3*"):
        assert path.stat().st_mode & 0o077 == 0


def test_every_answer_has_its_own_request_id(sandbox: Sandbox):
    answers = [
        sandbox.request("GET", "/v1/customers"),
        sandbox.request("GET", "/v1/customers", key=None),
        sandbox.request("GET", "/v1/customers/cus_none"),
        sandbox.request("GET", "/v1/nothing"),
        sandbox.request("POST", "/v1/customers", {"x": "y"}),
    ]
    assert [answer.status for answer in answers] == [200, 401, 404, 404, 400]
    seen = {answer.headers["Request-Id"] for answer in answers}
    assert len(seen) == len(answers)
    assert all(each.startswith("req_") for each in seen)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/subscriptions"),
        ("PUT", "/v1/customers"),
        ("POST", "/v1/invoices/create_preview/x"),
        ("POST", "/v2/billing/meter_events"),
    ],
)
def test_what_is_not_simulated_is_404_and_named_in_the_log(sandbox: Sandbox, method, path):
    answer = sandbox.request(method, path, {} if method != "GET" else None)
    assert answer.status == 404
    assert answer.error["type"] == "invalid_request_error"
    assert "Unrecognized request URL" in answer.error["message"]
    assert f"gap: {method} {path}" in sandbox.log.read_text()


@pytest.mark.parametrize(
    ("path", "form", "code", "param"),
    [
        ("/v1/customers", {"emial": "x"}, "parameter_unknown", "emial"),
        ("/v1/customers", {"address[town]": "x"}, "parameter_unknown", "address[town]"),
        ("/v1/invoices", {}, "parameter_missing", "customer"),
        ("/v1/invoices", {"customer": "cus_no"}, "resource_missing", "customer"),
        ("/v1/invoices", {"customer": ""}, "parameter_invalid_empty", "customer"),
        ("/v1/invoices", {"customer": "x", "auto_advance": "yes"}, None, "auto_advance"),
        ("/v1/invoices", {"customer": "x", "currency": "dollars"}, None, "currency"),
        ("/v1/invoices", {"customer": "x", "payment_method_types[0]": "card"},
         "parameter_unknown", "payment_method_types"),
        ("/v1/customers", {"balance": "1.5"}, "parameter_invalid_integer", "balance"),
        ("/v1/customers", {"balance": "1E3"}, "parameter_invalid_integer", "balance"),
        ("/v1/customers", {"metadata[k]": "x" * 501}, None, "metadata[k]"),
        ("/v1/webhook_endpoints", {"url": "http://localhost/"}, "parameter_missing",
         "enabled_events"),
        ("/v1/webhook_endpoints", {"url": "http://localhost/", "enabled_events[]": "*",
         "api_version": "2020-08-27"}, None, "api_version"),
    ],
)  # fmt: skip
def test_bad_parameters_are_named(
    sandbox: Sandbox, path: str, form: dict[str, str], code: str | None, param: str
):
    answer = sandbox.request("POST", path, form)
    assert answer.status == 400
    assert (answer.error.get("code"), answer.error["param"]) == (code, param)


def test_an_empty_string_unsets(client: stripe.StripeClient):
    made = client.v1.customers.create(
        {"name": "A", "description": "d", "metadata": {"a": "1", "b": "2", "c": "3"}}
    )
    left = client.v1.customers.update(made.id, {"description": "", "metadata": {"a": "", "c": "4"}})
    assert left.description is None
    assert left.metadata is not None
    assert left.metadata.to_dict() == {"b": "2", "c": "4"}
    bare = client.v1.customers.update(made.id, {"metadata": ""})
    assert bare.metadata is not None
    assert bare.metadata.to_dict() == {}


def test_json_bodies_are_refused(sandbox: Sandbox):
    answer = sandbox.request("POST", "/v1/customers", {}, {"Content-Type": "application/json"})
    assert answer.status == 200  # an empty body has no type
    address = {"Content-Type": "application/json"}
    assert sandbox.request("POST", "/v1/customers", {"a": "b"}, address).status == 400


def _lines(*amounts: Any) -> Any:
    return {"lines": [{"amount": amount, "description": "x"} for amount in amounts]}


def test_an_invoice_has_at_most_250_lines(books: Books):
    add = books.client.v1.invoices.add_lines
    draft = books.draft(books.customer())
    full = add(draft, _lines(*range(1, 251)))
    assert full.total == sum(range(1, 251))
    assert (len(full.lines.data), full.lines.has_more) == (10, True)
    with pytest.raises(stripe.InvalidRequestError, match="250"):
        add(draft, _lines(1))
    with pytest.raises(stripe.InvalidRequestError, match="250"):
        add(books.draft(books.customer()), _lines(*range(251)))
    listed = books.client.v1.invoices.line_items.list(draft, {"limit": 100})
    amounts = [line.amount for line in listed.auto_paging_iter()]
    assert amounts == list(range(1, 251))


@pytest.mark.parametrize(
    "line",
    [
        {"amount": "12.5"},
        {"amount": "1E2"},
        {"description": "no amount"},
        {"amount": "1", "quantity": "2"},
        {"amount": "1", "period[start]": "5", "period[end]": "4"},
        {"amount": "1", "period[start]": "5"},
        {"amount": "1", "description": "x" * 501},
    ],
)
def test_a_bad_line_adds_nothing_at_all(sandbox: Sandbox, books: Books, line: dict[str, str]):
    draft = books.draft(books.customer())
    form = {"lines[0][amount]": "100"}
    for name, value in line.items():
        head, bracket, tail = name.partition("[")
        form[f"lines[1][{head}]{bracket}{tail}"] = value
    answer = sandbox.request("POST", f"/v1/invoices/{draft}/add_lines", form)
    assert answer.status == 400
    assert books.client.v1.invoices.retrieve(draft).total == 0
    assert books.client.v1.invoices.line_items.list(draft).data == []


def test_items_attach_to_a_named_draft_in_its_currency(books: Books):
    items = books.client.v1.invoice_items
    customer = books.customer()
    draft = books.draft(customer, 100)
    items.create({"customer": customer, "invoice": draft, "amount": 11, "currency": "usd"})
    assert books.client.v1.invoices.retrieve(draft).total == 111
    assert [item.amount for item in items.list({"invoice": draft}).data] == [11, 100]
    with pytest.raises(stripe.InvalidRequestError, match="must match"):
        items.create({"customer": customer, "invoice": draft, "amount": 1, "currency": "eur"})
    with pytest.raises(stripe.InvalidRequestError) as pending:
        items.create({"customer": customer, "amount": 1, "currency": "usd"})
    assert (pending.value.code, pending.value.param) == ("parameter_missing", "invoice")
    with pytest.raises(stripe.InvalidRequestError):
        items.create({"customer": books.customer(), "invoice": draft, "amount": 1})
    assert books.client.v1.invoices.retrieve(draft).total == 111


def test_a_charge_has_at_most_eight_digits(books: Books):
    draft = books.draft(books.customer(), 99_999_999, 1)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        books.client.v1.invoices.finalize_invoice(draft)
    assert refused.value.code == "amount_too_large"
    assert books.client.v1.invoices.retrieve(draft).status == "draft"


def test_send_invoice_needs_a_due_date(books: Books):
    customer = books.customer()
    with pytest.raises(stripe.InvalidRequestError, match="days_until_due"):
        books.draft(customer, collection_method="send_invoice")
    draft = books.draft(customer, collection_method="send_invoice", days_until_due=30)
    made = books.client.v1.invoices.retrieve(draft)
    assert made.due_date == made.created + 30 * 86_400


def test_a_deleted_customer_answers_as_deleted_and_cannot_be_billed(books: Books):
    customer = books.customer()
    draft = books.draft(customer, 100)
    books.client.v1.customers.delete(customer)
    assert books.client.v1.customers.retrieve(customer).deleted is True
    with pytest.raises(stripe.InvalidRequestError):
        books.draft(customer)
    with pytest.raises(stripe.InvalidRequestError):
        books.client.v1.invoices.finalize_invoice(draft)
