"""Lists, cursors, ranges and expansion."""

import pytest
import stripe

from tests.stripe_sandbox.rig import Books, Sandbox


@pytest.fixture
def drafts(books: Books) -> tuple[str, list[str]]:
    """A customer and its seven drafts, oldest first."""
    customer = books.customer()
    return customer, [books.draft(customer) for _ in range(7)]


def test_lists_are_newest_first_and_pages_meet_every_object_once(
    client: stripe.StripeClient, drafts: tuple[str, list[str]]
):
    customer, made = drafts
    first = client.v1.invoices.list({"customer": customer, "limit": 3})
    assert [each.id for each in first.data] == made[:3:-1]
    assert first.has_more
    assert [each.id for each in first.auto_paging_iter()] == made[::-1]


def test_ending_before_reads_backwards_in_the_lists_order(
    client: stripe.StripeClient, drafts: tuple[str, list[str]]
):
    customer, made = drafts
    page = client.v1.invoices.list({"customer": customer, "ending_before": made[2], "limit": 3})
    assert [each.id for each in page.data] == [made[5], made[4], made[3]]
    assert page.has_more  # made[6] is newer still
    rest = client.v1.invoices.list({"customer": customer, "ending_before": made[5]})
    assert [each.id for each in rest.data] == [made[6]]
    assert not rest.has_more


def test_lines_are_listed_in_the_order_they_were_added_both_ways(books: Books):
    draft = books.draft(books.customer(), 1, 2, 3, 4, 5)
    lines = books.client.v1.invoices.line_items
    first = lines.list(draft, {"limit": 2})
    after = lines.list(draft, {"limit": 2, "starting_after": first.data[-1].id})
    before = lines.list(draft, {"limit": 2, "ending_before": after.data[-1].id})
    assert [line.amount for line in first.data] == [1, 2]
    assert [line.amount for line in after.data] == [3, 4]
    assert [line.amount for line in before.data] == [2, 3]


def test_invoices_are_found_by_status_and_by_creation(books: Books):
    customer = books.customer()
    made = books.draft(customer, 100)
    books.draft(customer)
    books.client.v1.invoices.finalize_invoice(made)
    invoices = books.client.v1.invoices
    found = invoices.list({"customer": customer, "status": "open"}).data
    assert [each.id for each in found] == [made]
    created = found[0].created
    for bounds, count in (
        ({"gte": created}, 2),
        ({"lt": created}, 0),
        ({"gt": created + 3600}, 0),
        ({"lte": created + 3600, "gt": created - 1}, 2),
    ):
        listed = invoices.list({"customer": customer, "created": bounds})  # type: ignore[arg-type]
        assert len(listed.data) == count


def test_customers_are_found_by_email_and_events_by_type(sandbox: Sandbox, books: Books):
    customer = books.customer(email="only@one.example")
    found = books.client.v1.customers.list({"email": "only@one.example"}).data
    assert [each.id for each in found] == [customer]
    types = {
        "type=customer.created": {"customer.created"},
        "type=payment_method.*": {"payment_method.attached"},
        "types[]=customer.created&types[]=customer.deleted": {"customer.created"},
    }
    for query, expected in types.items():
        events = sandbox.request("GET", f"/v1/events?limit=5&{query}").json["data"]
        assert expected <= {event["type"] for event in events}
        assert all(event["type"].startswith(("customer.", "payment_method.")) for event in events)
    wild = sandbox.request("GET", "/v1/events?type=[a-z]*").json["data"]
    assert wild == []


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "starting_after=in_none",
        "starting_after=a&ending_before=b",
        "status=closed",
        "created[after]=1",
        "subscription=sub_1",
    ],
)
def test_bad_list_parameters_are_refused(sandbox: Sandbox, query: str):
    assert sandbox.request("GET", f"/v1/invoices?{query}").status == 400


def test_ids_become_objects_where_asked(books: Books):
    customer = books.customer()
    invoice = books.draft(customer, 1200)
    books.client.v1.invoices.finalize_invoice(invoice)
    paid = books.client.v1.invoices.pay(
        invoice,
        {
            "expand": [
                "customer.invoice_settings.default_payment_method",
                "payments.data.payment.payment_intent.payment_method",
                "lines",
            ]
        },
    ).to_dict(for_json=True)
    assert paid["customer"]["id"] == customer
    assert paid["customer"]["invoice_settings"]["default_payment_method"]["type"] == "card"
    intent = paid["payments"]["data"][0]["payment"]["payment_intent"]
    assert intent["status"] == "succeeded"
    assert intent["payment_method"]["card"]["last4"] == "4242"
    plain = books.client.v1.invoices.retrieve(invoice).to_dict(for_json=True)
    assert plain["customer"] == customer
    assert "payments" not in plain  # shown on demand only, as at Stripe


def test_lists_expand_their_rows(sandbox: Sandbox, books: Books):
    customer = books.customer()
    books.draft(customer)
    answer = sandbox.request(
        "GET", f"/v1/invoices?customer={customer}&expand[]=data.customer&expand[]=data.lines"
    )
    assert answer.json["data"][0]["customer"]["id"] == customer


@pytest.mark.parametrize("path", ["charge", "data.customer", "customer.name", "a.b.c.d.e"])
def test_what_cannot_be_expanded_is_refused(sandbox: Sandbox, books: Books, path: str):
    draft = books.draft(books.customer())
    assert sandbox.request("GET", f"/v1/invoices/{draft}?expand[]={path}").status == 400
