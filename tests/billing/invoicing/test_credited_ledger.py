"""What credit notes leave in the ledger, and that no role can take one back."""

import itertools

import psycopg
import pytest

from billing.invoicing.credit import LineAsked
from billing.ledger.audit import audit
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


TABLES = ["credit_note", "credit_note_line", "credit_note_tax"]


def test_no_role_may_change_or_remove_a_credit_note(acme, prices):
    """Nor may who needs no grant: the superuser is refused by triggers."""
    noted(acme, invoiced(acme, prices, "paid", ("19", "exclusive")), "a")
    refused = {
        "meterplane_app": psycopg.errors.InsufficientPrivilege,
        "meterplane_system": psycopg.errors.InsufficientPrivilege,
        "postgres": psycopg.errors.RestrictViolation,
    }
    for (name, error), table in itertools.product(refused.items(), TABLES):
        for act in (f"UPDATE {table} SET tenant_id = tenant_id", f"DELETE FROM {table}"):
            with pytest.raises(error), role(name, acme.id) as connection:
                connection.execute(act.encode())
