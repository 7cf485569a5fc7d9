"""The console shows the ledger: entries with their debits and credits, and balances."""

import pytest
from django.urls import reverse

from billing.ledger.audit_runs import AuditRun
from billing.ledger.post import post
from meterplane.kernel import clock
from tenants.scoping import system_scope, tenant_scope
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


def test_the_last_audit_is_shown_and_alarms_where_it_proved_nothing(operator, entry, organisation):
    told = [{"organisation": str(organisation.id), "check": "sums", "subject": "entry 1",
             "what": "debits and credits are 1 apart"}]  # fmt: skip
    assert "The first audit of the ledger runs tonight" in page(operator, "ledgerentry_changelist")
    with system_scope("a test"):
        run = AuditRun.objects.create(on=clock.now().date(), finished_at=clock.now(), entries=7)
    assert "Proved" in page(operator, "ledgerentry_changelist")
    assert "Ledger audit<" not in operator.get(reverse("console:index")).content.decode()
    with system_scope("a test"):
        AuditRun.objects.filter(on=run.on).update(wrong=1, findings=told)
    assert "the ledger is not proved" in page(operator, "ledgerentry_changelist")
    assert "the ledger is not proved" in operator.get(reverse("console:index")).content.decode()
    shown = page(operator, "auditrun_change", run.on)
    assert "debits and credits are 1 apart" in shown
    assert organisation.slug in shown
