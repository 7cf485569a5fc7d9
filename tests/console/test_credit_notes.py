"""An operator gives back of an invoice: what is left is shown, a look is no act, the act is one."""

import re
from decimal import Decimal
from html import unescape

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from billing.invoicing.credit import LineAsked, create_credit_note
from billing.invoicing.models import CreditNote, CreditNoteLine, CreditNoteSeries, Invoice
from billing.ledger.queries import balance_of
from tenants.scoping import tenant_scope
from tests.billing.conftest import acme, late_november, prices  # noqa: F401  fixtures
from tests.billing.invoicing.test_credit_notes import invoiced, lines_of
from tests.console.conftest import BACKEND

pytestmark = pytest.mark.django_db
FORM = {
    "amount_1": "", "quantity_1": "", "amount_2": "", "quantity_2": "", "amount_3": "",
    "quantity_3": "", "reason": "goodwill", "effect": "refund", "memo": "sorry", "named": "f-1",
}  # fmt: skip


@pytest.fixture
def paid(acme, prices) -> Invoice:  # noqa: F811
    """444, 222 and 1 cent, with 19 % on top: 794."""
    return invoiced(acme, prices, "paid", ("19", "exclusive"))


def words(answer) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())


def page(invoice: Invoice) -> str:
    return reverse("console:invoicing_invoice_give_back", args=[invoice.pk])


def notes(tenant) -> list[CreditNote]:
    with tenant_scope(tenant.id):
        return list(CreditNote.objects.order_by("number"))


def test_a_look_shows_what_would_go_back_and_keeps_nothing_of_it(operator, acme, paid):  # noqa: F811
    assert "$4.44" in words(operator.get(page(paid)))
    asked = FORM | {"amount_1": "1.00", "quantity_2": "185000"}
    look = operator.post(page(paid), asked)
    assert look.status_code == 200
    # 100 and half of 222, and 19 % of both.
    assert "In all $2.51 , to be refunded, for goodwill" in words(look)
    assert 'name="total_minor" value="251"' in look.text
    with tenant_scope(acme.id):
        assert not CreditNote.objects.exists()
        assert not CreditNoteSeries.objects.exists()
        assert balance_of("refunds", "USD") == 0
    assert not LogEntry.objects.exists()


def test_what_is_confirmed_is_made_once_with_its_lines_and_entries(operator, acme, paid):  # noqa: F811
    whole = {"amount_1": "1.00", "quantity_2": "185000", "amount_3": "0.01"}
    confirmed = FORM | whole | {"total_minor": "252"}
    first = operator.post(page(paid), confirmed)
    assert first.status_code == 302
    assert operator.post(page(paid), confirmed)["Location"] == first["Location"]
    (note,) = notes(acme)
    assert (note.total_minor, note.effect, note.memo) == (252, "refund", "sorry")
    with tenant_scope(acme.id):
        lines = CreditNoteLine.objects.order_by("position").values_list("amount_minor", "quantity")
        assert list(lines) == [(100, None), (111, Decimal(185000)), (1, None)]
    shown = words(operator.get(first["Location"]))
    for text in (note.number, "$2.52", "credit_note.made", "revenue:input_tokens", "Goodwill"):
        assert text in shown
    pdf = operator.get(reverse("console:invoicing_creditnote_pdf", args=[note.pk]))
    assert pdf.content.startswith(b"%PDF")
    told = sorted(each.change_message for each in LogEntry.objects.all())
    assert told == [f"credit note {note.number} of $2.52", "gave back $2.52"]
    again = words(operator.get(page(paid)))
    assert "$3.44" in again
    assert "185,000 units" in again


def test_all_that_is_left_goes_back_to_the_cent(operator, acme, paid):  # noqa: F811
    with tenant_scope(acme.id):
        create_credit_note(
            paid.id,
            reason="other",
            idempotency_key="k",
            lines=[LineAsked(lines_of(acme, paid)[0], 7)],
        )
    rest = FORM | {"everything": "on", "effect": "balance"}
    look = operator.post(page(paid), rest)
    total = re.search(r'name="total_minor" value="(\d+)"', look.text)
    assert total is not None
    assert operator.post(page(paid), rest | {"total_minor": total[1]}).status_code == 302
    assert sum(each.total_minor for each in notes(acme)) == paid.total_minor
    assert "nothing is left" in words(operator.get(page(paid)))


def test_what_has_changed_since_it_was_looked_at_is_shown_again(operator, acme, paid):  # noqa: F811
    rest = FORM | {"everything": "on"}
    assert 'name="total_minor" value="794"' in operator.post(page(paid), rest).text
    with tenant_scope(acme.id):
        create_credit_note(
            paid.id,
            reason="other",
            idempotency_key="k",
            lines=[LineAsked(lines_of(acme, paid)[2], 1)],
        )
    answer = operator.post(page(paid), rest | {"total_minor": "794"})
    assert answer.status_code == 200
    assert "What is left has changed" in words(answer)
    assert len(notes(acme)) == 1


REFUSED = [
    ({}, "Say what to give back"),
    ({"amount_1": "4.45"}, "Of this line 4.44 USD is left, of 4.44."),
    ({"amount_1": "-1"}, "What this line gives back is above zero."),
    ({"amount_1": "1.005"}, "with at most 2 decimals"),
    ({"amount_1": "1", "quantity_1": "1"}, "An amount or a quantity, not both."),
    ({"quantity_2": "370001"}, "Of this line 370000 is left, of 370000."),
    ({"quantity_2": "many"}, "Write a quantity as 100 or 12.5"),
    ({"everything": "on", "amount_1": "1"}, "not both"),
    ({"amount_1": "1", "effect": "lowers_due"}, "not one of the available choices"),
    ({"amount_1": "1", "named": ""}, "Name what you ask by a key"),
]


def test_a_fault_is_said_beside_its_field_and_nothing_is_made(operator, acme, paid):  # noqa: F811
    for change, said in REFUSED:
        answer = operator.post(page(paid), FORM | change | {"total_minor": "119"})
        assert answer.status_code == 200, change
        assert said in words(answer), change
        of_line = next((name for name in change if name.startswith(("amount", "quantity"))), None)
        if of_line and len(change) == 1:
            cell = answer.text[answer.text.index(f'name="{of_line}"') :]
            assert said in unescape(cell[: cell.index("</td>")]), change
    assert notes(acme) == []


def test_of_an_open_invoice_less_is_due_and_a_draft_gives_nothing_back(operator, acme, prices):  # noqa: F811
    opened = invoiced(acme, prices)
    asked = FORM | {"amount_1": "1", "effect": "lowers_due", "total_minor": "100"}
    assert operator.post(page(opened), asked).status_code == 302
    assert notes(acme)[0].effect == "lowers_due"
    with tenant_scope(acme.id):
        Invoice.objects.filter(id=opened.id).update(status="uncollectible")
    refused = operator.post(page(opened), asked | {"named": "f-2"}, follow=True)
    assert "uncollectible has nothing to give back" in words(refused)
    assert len(notes(acme)) == 1


def test_a_customer_cannot_and_an_invoice_that_is_not_there_has_no_page(operator, acme, paid):  # noqa: F811
    customer = Client()
    customer.force_login(acme.owner, backend=BACKEND)
    sent = customer.post(page(paid), FORM | {"amount_1": "1", "total_minor": "119"})
    assert sent.status_code == 302
    assert customer.get(sent["Location"]).status_code == 403
    assert notes(acme) == []
    missing = reverse("console:invoicing_invoice_give_back", args=[acme.id])
    assert operator.get(missing).status_code == 404
    assert "A credit note is made from an invoice" in words(
        operator.get(reverse("console:invoicing_creditnote_changelist"))
    )
