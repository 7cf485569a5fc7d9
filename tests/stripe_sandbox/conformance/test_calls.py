"""What every call has in common: replay, refusals, lists, events, endpoints."""

import threading
from typing import Any

import pytest
import stripe

from tests.stripe_sandbox.conformance.account import Account


def test_a_key_is_executed_once_and_answered_again(account: Account):
    asked = {"name": "Once", "metadata": {"org": "7"}}
    once = account.v1.customers.create(asked, account.key("once"))
    again = account.v1.customers.create(asked, account.key("once"))
    assert again.id == once.id
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    account.v1.customers.delete(once.id)


def test_a_key_with_other_parameters_is_refused(account: Account):
    made = account.v1.customers.create({"name": "A"}, account.key("other"))
    with pytest.raises(stripe.IdempotencyError) as refused:
        account.v1.customers.create({"name": "B"}, account.key("other"))
    assert refused.value.http_status == 400
    account.v1.customers.delete(made.id)


def test_a_refused_parameter_leaves_the_key_free(account: Account):
    with pytest.raises(stripe.InvalidRequestError):
        account.v1.customers.create({"nam": "A"}, account.key("free"))
    made = account.v1.customers.create({"name": "A"}, account.key("free"))
    account.v1.customers.delete(made.id)


def test_two_at_once_with_one_key_make_one_object(account: Account):
    """The second is told to come back (409) or given the first one's answer."""
    made: list[str] = []
    busy: list[int | None] = []

    def create() -> None:
        try:
            made.append(account.v1.customers.create({"name": "Race"}, account.key("race")).id)
        except stripe.StripeError as told:
            busy.append(told.http_status)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 1
    assert set(busy) <= {409}
    account.v1.customers.delete(made[0])


@pytest.mark.parametrize(
    ("path", "form", "status", "code", "param"),
    [
        ("/v1/customers", {"emial": "x"}, 400, "parameter_unknown", "emial"),
        ("/v1/customers", {"address": {"town": "x"}}, 400, "parameter_unknown", "address[town]"),
        ("/v1/webhook_endpoints", {"url": "https://a.example"}, 400, "parameter_missing",
         "enabled_events"),
        ("/v1/invoices", {"customer": "cus_none"}, 400, "resource_missing", "customer"),
        ("/v1/customers", {"balance": "1.5"}, 400, "parameter_invalid_integer", "balance"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_parameter_is_said(account: Account, path, form, status, code, param):
    with pytest.raises(stripe.InvalidRequestError) as refused:
        account.client.raw_request("post", path, **form)
    said = refused.value
    assert (said.http_status, said.code, said.param) == (status, code, param)


@pytest.mark.parametrize("kind", ["customers", "invoices", "payment_intents", "events"])
def test_an_unknown_id_is_404(account: Account, kind: str):
    with pytest.raises(stripe.InvalidRequestError) as missing:
        getattr(account.v1, kind).retrieve("none_1")
    assert (missing.value.http_status, missing.value.code) == (404, "resource_missing")


def test_a_key_that_is_none_is_401(account: Account):
    for key in ("whatever", "pk_test_123"):
        with pytest.raises(stripe.AuthenticationError) as refused:
            account.client_with(key).v1.customers.list()
        assert refused.value.http_status == 401
    never_issued: Any = account.client_with("sk_test_0123456789abcdefNeverIssued")
    with account.deviation("any_test_key"), pytest.raises(stripe.AuthenticationError):
        never_issued.v1.customers.list()


def test_lists_are_newest_first_and_pages_meet_every_object_once(account: Account):
    customer = account.customer(card=None)
    made = [account.draft(customer) for _ in range(5)]
    first = account.v1.invoices.list({"customer": customer, "limit": 2})
    assert [each.id for each in first.data] == made[:2:-1]
    assert first.has_more
    assert [each.id for each in first.auto_paging_iter()] == made[::-1]
    up = account.v1.invoices.list({"customer": customer, "ending_before": made[2]})
    assert [each.id for each in up.data] == made[:2:-1]
    drafts = account.v1.invoices.list({"customer": customer, "status": "draft"})
    assert len(drafts.data) == 5
    assert account.v1.invoices.list({"customer": customer, "status": "paid"}).data == []


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 101}, {"status": "closed"}, {"x": "1"}])
def test_lists_refuse_what_they_do_not_know(account: Account, wrong: dict[str, Any]):
    with pytest.raises(stripe.InvalidRequestError):
        account.v1.invoices.list(wrong)


def test_an_empty_text_unsets(account: Account):
    customer = account.customer(card=None, metadata={"a": "1", "b": "2"}, description="d")
    left = account.v1.customers.update(customer, {"metadata": {"a": ""}, "description": ""})
    assert left.metadata.to_dict() == {"b": "2"}
    assert not left.description
    assert account.v1.customers.update(customer, {"metadata": ""}).metadata.to_dict() == {}


def test_a_deleted_customer_still_says_so(account: Account):
    customer = account.customer(card=None)
    assert account.v1.customers.delete(customer).deleted is True
    assert account.v1.customers.retrieve(customer).deleted is True


def test_what_happened_is_told_by_events(account: Account):
    invoice = account.open(account.customer(), 900)
    account.v1.invoices.pay(invoice)
    expected = {"invoice.created", "invoice.finalized", "invoice.paid", "invoice.payment_succeeded"}

    def told() -> dict[str, Any]:
        events = account.v1.events.list({"type": "invoice.*", "limit": 100}).data
        return {each.type: each for each in events if each.data.object["id"] == invoice}

    account.eventually(lambda: expected <= set(told()), "the events of a paid invoice")
    events = told()
    assert events["invoice.finalized"].data.object["status"] == "open"
    assert events["invoice.paid"].data.object["status"] == "paid"
    one = account.v1.events.retrieve(events["invoice.paid"].id)
    assert (one.type, one.api_version) == ("invoice.paid", stripe.api_version)


def test_an_endpoint_is_made_read_changed_listed_and_removed(account: Account):
    endpoints = account.v1.webhook_endpoints
    made = endpoints.create(
        {
            "url": f"{account.hook_url}/{account.run}",
            "enabled_events": ["invoice.paid"],
            "api_version": stripe.api_version,
            "metadata": {"run": account.run},
        }
    )
    assert made.secret.startswith("whsec_")
    assert (made.status, made.api_version) == ("enabled", stripe.api_version)
    read = endpoints.retrieve(made.id).to_dict()
    assert "secret" not in read  # shown once
    changed = endpoints.update(made.id, {"disabled": True, "enabled_events": ["*"]})
    assert (changed.status, changed.enabled_events) == ("disabled", ["*"])
    assert made.id in [each.id for each in endpoints.list({"limit": 100}).data]
    assert endpoints.delete(made.id).deleted is True
    with pytest.raises(stripe.InvalidRequestError) as gone:
        endpoints.retrieve(made.id)
    assert gone.value.http_status == 404


def test_where_events_may_go(account: Account):
    public = {"url": f"https://example.com/{account.run}", "enabled_events": ["invoice.paid"]}
    with account.deviation("events_leave_this_machine"):
        made = account.v1.webhook_endpoints.create(public)
        account.v1.webhook_endpoints.delete(made.id)
    private = {"url": f"http://127.0.0.1:9/{account.run}", "enabled_events": ["invoice.paid"]}
    refused = pytest.raises(stripe.InvalidRequestError)
    with account.deviation("events_come_to_this_machine"), refused:
        account.v1.webhook_endpoints.create(private)


def test_only_what_happens_can_be_subscribed_to(account: Account):
    wrong = {"url": f"{account.hook_url}/{account.run}", "enabled_events": ["invoice.settled"]}
    with account.deviation("event_names_are_checked"), pytest.raises(stripe.InvalidRequestError):
        account.v1.webhook_endpoints.create(wrong)
    if not account.is_stripe:
        assert account.excused("'invoice.settled' is not one of Stripe's")


def test_what_is_not_simulated_is_refused_aloud(account: Account):
    with account.deviation("every_parameter_of_a_call"):
        tax_ids = [{"type": "eu_vat", "value": "DE123456789"}]
        made = account.v1.customers.create({"name": "A", "tax_id_data": tax_ids})
        account.v1.customers.delete(made.id)
    with account.deviation("every_call"):
        assert account.v1.coupons.list({"limit": 1}).object == "list"


def test_a_request_may_speak_an_older_version(account: Account):
    with account.deviation("older_versions"):
        account.client.raw_request(
            "get", "/v1/coupons", stripe_version="2025-03-31.basil", limit="1"
        )
