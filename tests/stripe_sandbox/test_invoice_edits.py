"""Drafts while they change: lines, prices, previews, numbers, sending, and cards edited."""

from typing import Any

import pytest
import stripe

from tests.stripe_sandbox.rig import Books


def _lines(books: Books, draft: str) -> list[Any]:
    return list(books.client.v1.invoices.line_items.list(draft).data)


def test_lines_and_their_items_change_and_go_together(books: Books):
    client = books.client.v1
    draft = books.draft(books.customer(), 100, 200, 300)
    first, second, third = _lines(books, draft)
    edits: Any = [
        {"id": first.id, "amount": 150, "description": "More", "metadata": {"uid": "l1"}},
        {"id": second.id, "description": "Same amount"},
    ]
    assert client.invoices.update_lines(draft, {"lines": edits}).total == 650
    removed: Any = {"lines": [{"behavior": "delete", "id": third.id}]}
    assert client.invoices.remove_lines(draft, removed).total == 350
    assert [(line.amount, line.description) for line in _lines(books, draft)] == [
        (150, "More"),
        (200, "Same amount"),
    ]
    items = list(client.invoice_items.list({"invoice": draft}).data)
    assert [(item.amount, item.description) for item in items] == [
        (200, "Same amount"),
        (150, "More"),
    ]
    client.invoice_items.update(items[0].id, {"amount": 50})
    assert client.invoices.line_items.update(draft, first.id, {"amount": 60}).amount == 60
    assert client.invoices.retrieve(draft).total == 110
    assert client.invoice_items.delete(items[0].id).deleted is True
    assert client.invoices.retrieve(draft).total == 60
    client.invoices.finalize_invoice(draft)
    for act in (
        lambda: client.invoices.update_lines(draft, {"lines": edits[:1]}),
        lambda: client.invoices.remove_lines(draft, removed),
        lambda: client.invoice_items.delete(items[1].id),
        lambda: client.invoices.line_items.update(draft, first.id, {"amount": 1}),
    ):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            act()
        assert refused.value.code == "invoice_not_editable"
    kept = client.invoices.line_items.update(draft, first.id, {"metadata": {"seen": "yes"}})
    assert kept.metadata.to_dict() == {"uid": "l1", "seen": "yes"}


@pytest.mark.parametrize(
    "edit",
    [
        {"id": "il_none", "amount": 1},
        {"amount": 1},
        {"id": "first", "amount": "1.5"},
        {"id": "first", "amount": 1, "quantity": 2},
    ],
)
def test_a_bad_edit_changes_nothing_at_all(books: Books, edit: dict[str, Any]):
    draft = books.draft(books.customer(), 100, 200)
    first, second = _lines(books, draft)
    if edit.get("id") == "first":
        edit = {**edit, "id": second.id}
    lines: Any = [{"id": first.id, "amount": 5}, edit]
    with pytest.raises(stripe.InvalidRequestError):
        books.client.v1.invoices.update_lines(draft, {"lines": lines})
    assert [line.amount for line in _lines(books, draft)] == [100, 200]
    assert books.client.v1.invoices.retrieve(draft).total == 300


def test_a_whole_price_times_a_whole_quantity_is_a_line(books: Books):
    client = books.client.v1
    product: Any = {"name": "GPU hour"}
    price = client.prices.create({"currency": "usd", "unit_amount": 250, "product_data": product})
    draft = books.draft(books.customer())
    lines: Any = [
        {"pricing": {"price": price.id}, "quantity": 3},
        {
            "price_data": {"currency": "usd", "unit_amount": 7, "product_data": product},
            "quantity": 10,
        },
    ]
    assert client.invoices.add_lines(draft, {"lines": lines}).total == 820
    first, _ = _lines(books, draft)
    assert (first.quantity, first.pricing.price_details.price) == (3, price.id)
    client.invoices.line_items.update(draft, first.id, {"quantity": 4})
    assert client.invoices.retrieve(draft).total == 1070
    fine = client.prices.create(
        {"currency": "usd", "unit_amount_decimal": "0.5", "product": str(price.product)}  # type: ignore[typeddict-item]
    )
    euro = client.prices.create(
        {"currency": "eur", "unit_amount": 1, "product": str(price.product)}
    )
    for wrong in (fine.id, euro.id, "price_none"):
        with pytest.raises(stripe.InvalidRequestError):
            client.invoices.add_lines(draft, {"lines": [{"pricing": {"price": wrong}}]})


def test_a_preview_shows_and_leaves_nothing(books: Books):
    client = books.client.v1
    customer = books.customer(address={"country": "DE"}, balance=-100)
    shown = client.invoices.create_preview(
        {
            "customer": customer,
            "currency": "usd",
            "automatic_tax": {"enabled": True},
            "invoice_items": [{"amount": 1000, "description": "Tokens"}, {"amount": 50}],
        }
    )
    assert (shown.status, shown.number, shown.id[:12]) == ("draft", None, "upcoming_in_")
    assert (shown.subtotal, shown.total, shown.amount_due) == (1050, 1250, 1150)
    assert [line.amount for line in shown.lines.data] == [1000, 50]
    assert client.invoices.list({"customer": customer}).data == []
    assert books.events_about(shown.id) == []
    elsewhere = client.invoices.create_preview(
        {
            "customer_details": {"address": {"country": "FR"}},
            "automatic_tax": {"enabled": True},
            "invoice_items": [{"amount": 1000}],
        }
    )
    assert elsewhere.total == 1200
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.invoices.create_preview({"customer": customer})
    assert refused.value.param == "invoice_items"


def test_the_caller_may_number_an_invoice_once(books: Books):
    client = books.client.v1
    customer = books.customer()
    first, second = (books.draft(customer, 100, number=f"MP-{customer[-8:]}") for _ in range(2))
    assert client.invoices.finalize_invoice(first).number == f"MP-{customer[-8:]}"
    with pytest.raises(stripe.InvalidRequestError, match="already exists"):
        client.invoices.finalize_invoice(second)
    client.invoices.update(second, {"number": ""})
    prefix = client.customers.retrieve(customer).invoice_prefix
    assert client.invoices.finalize_invoice(second).number == f"{prefix}-0001"


def test_sending_finalizes_a_draft_and_tells(books: Books):
    client = books.client.v1
    draft = books.draft(
        books.customer(card=None), 100, collection_method="send_invoice", days_until_due=30
    )
    sent = client.invoices.send_invoice(draft)
    assert (sent.status, sent.number is not None) == ("open", True)
    assert books.events_about(draft)[-1] == "invoice.sent"
    client.invoices.void_invoice(draft)
    with pytest.raises(stripe.InvalidRequestError):
        client.invoices.send_invoice(draft)


def test_a_saved_card_may_change_its_expiry_and_its_holder(books: Books):
    client = books.client.v1
    [card] = client.customers.payment_methods.list(books.customer()).data
    changed = client.payment_methods.update(
        card.id, {"card": {"exp_month": 3}, "billing_details": {"name": "Ada"}}
    )
    assert (changed.card.exp_month, changed.billing_details.name) == (3, "Ada")
    assert books.events_about(card.id)[-1] == "payment_method.updated"
