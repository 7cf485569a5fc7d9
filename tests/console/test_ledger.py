"""The console shows the ledger: entries with their debits and credits, and balances."""

import pytest
from django.urls import reverse

from billing.ledger.post import post
from meterplane.kernel import clock
from tenants.scoping import tenant_scope
from tests.billing.ledger.rig import legs

pytestmark = pytest.mark.django_db


@pytest.fixture
def entry(organisation):
    with tenant_scope(organisation.id):
        moved = legs("receivable 123456, revenue:requests -123456")
        return post(kind="invoice.finalised", source_id="1", currency="USD", legs=moved,
                    at=clock.now(), memo="Invoice ACME-000001 finalised")  # fmt: skip


def page(operator, name, *args) -> str:
    answer = operator.get(reverse(f"console:ledger_{name}", args=args))
    assert answer.status_code == 200
    return answer.content.decode()


def test_entries_are_listed_and_show_their_legs(operator, entry):
    assert "Invoice ACME-000001 finalised" in page(operator, "ledgerentry_changelist")
    shown = page(operator, "ledgerentry_change", entry)
    assert shown.count("$1,234.56") == 2
    assert "revenue:requests" in shown
    assert 'name="_save"' not in shown


def test_balances_are_shown_on_their_side(operator, entry):
    shown = page(operator, "ledgerbalance_changelist")
    assert shown.count("$1,234.56") == 2
    assert "receivable" in shown
    assert "credit" in shown


def test_an_entry_can_be_neither_added_changed_nor_deleted(operator, entry):
    for name, args in (("add", []), ("change", [entry]), ("delete", [entry])):
        address = reverse(f"console:ledger_ledgerentry_{name}", args=args)
        assert operator.post(address, {"kind": "x"}).status_code == 403
