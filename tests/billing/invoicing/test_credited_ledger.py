"""What credit notes leave in the ledger, and that no role can take one back."""

import psycopg
import pytest

from billing.invoicing.credit import LineAsked
from billing.invoicing.models import CreditNote
from billing.ledger.audit import audit
from tenants.scoping import tenant_scope
from tests.billing.invoicing.test_credit_notes import invoiced, lines_of, noted
from tests.billing.ledger.rig import held, role

pytestmark = pytest.mark.django_db(transaction=True)


def test_notes_that_use_an_invoice_up_leave_nothing_of_it_in_any_account(acme, prices):
    """Each rounds taxes in prices for itself; between them no cent may stay with a meter."""
    invoice = invoiced(acme, prices, "paid", ("19", "inclusive"), ("7", "inclusive"))
    first, second, third = lines_of(acme, invoice)
    noted(acme, invoice, "a", [LineAsked(first, 1), LineAsked(second, 2)])
    noted(acme, invoice, "b", [LineAsked(first, 111)])
    noted(acme, invoice, "c", [LineAsked(second, 3), LineAsked(third)])
    noted(acme, invoice, "d")
    assert held(acme.id) == {"payments": 667, "refunds": -667}
    assert [each.check for each in audit() if not each.holds] == []


@pytest.mark.parametrize("table", ["credit_note", "credit_note_line", "credit_note_tax"])
@pytest.mark.parametrize("name", ["meterplane_app", "meterplane_system"])
@pytest.mark.parametrize("act", ["UPDATE {} SET tenant_id = tenant_id", "DELETE FROM {}"])
def test_no_role_may_change_or_remove_a_credit_note(acme, prices, table, name, act):
    noted(acme, invoiced(acme, prices, "paid", ("19", "exclusive")), "a")
    with pytest.raises(psycopg.errors.InsufficientPrivilege), role(name, acme.id) as connection:
        connection.execute(act.format(table).encode())
    with tenant_scope(acme.id):
        assert CreditNote.objects.count() == 1


@pytest.mark.parametrize("table", ["credit_note", "credit_note_line", "credit_note_tax"])
def test_nor_may_who_needs_no_grant(acme, prices, table):
    noted(acme, invoiced(acme, prices, "paid", ("19", "exclusive")), "a")
    with pytest.raises(psycopg.errors.RestrictViolation), role("postgres") as admin:
        admin.execute(f"DELETE FROM {table}".encode())
