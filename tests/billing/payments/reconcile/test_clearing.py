"""What clearing accounts hold is explained by open items at each step, and is zero at the end."""

from datetime import timedelta

import pytest

from billing.credits.refund import refund_credit
from billing.payments import tasks
from billing.payments.collect import collect
from billing.payments.reconcile.clearing import clearing, holdings
from meterplane.kernel import clock
from tests.billing.credits.rig import give
from tests.billing.ledger.rig import tamper
from tests.billing.payments.disputing import Bank
from tests.billing.payments.test_credit_notes import credited, paid
from tests.billing.payments.test_overpaid import pays_there

pytestmark = pytest.mark.django_db(transaction=True)


def held(*accounts: str) -> dict[str, tuple[int, list[tuple[str, int]]]]:
    """What accounts hold, but for `payments` unless it is asked for, and their open items."""
    found = holdings()
    assert [each.account for each in found if each.rest_minor] == []
    return {
        each.account: (
            each.balance_minor,
            [(item.name, item.amount_minor) for item in each.items],
        )
        for each in found
        if (each.balance_minor or each.items) and (each.account != "payments" or accounts)
    }


def test_an_invoice_is_an_open_item_until_it_is_paid(organisation, billed, stripe, there):
    invoice = billed(organisation)
    assert held() == {}
    collect(organisation.id, invoice.id, stripe)
    assert held() == {"receivable": (301, [("invoice ACME-000001 is open", 301)])}
    credited(organisation, invoice, 100)
    assert held() == {"receivable": (201, [("invoice ACME-000001 is open", 201)])}
    # The customer pays before the note arrives there.
    pays_there(organisation, invoice, stripe, there)
    over = [("too much was paid of invoice ACME-000001", -100)]
    assert held("payments") == {
        "customer_balance": (-100, over),
        "payments": (301, [("invoice paid (1)", 301)]),
    }
    tasks.sweep()
    assert held() == {}


def test_what_was_promised_is_an_open_item_until_it_is_paid_back(organisation, billed, stripe):
    invoice = paid(organisation, billed, stripe)
    credited(organisation, invoice, 100, "refund")
    promise = ("credit notes of invoice ACME-000001 are to be paid back", -100)
    assert held() == {"refunds": (-100, [promise])}
    tasks.sweep()
    assert held() == {}
    bought = give(organisation, 500, kind="purchased", reason="wire")
    assert refund_credit(tenant_id=organisation.id, grant_id=bought) == 500
    unused = ("bought credit that was not used is to be paid back", -500)
    assert held() == {"refunds": (-500, [unused])}


def test_what_a_bank_holds_is_an_open_item_until_it_is_decided_and_back(
    organisation, billed, stripe, there
):
    bank = Bank(there, stripe)
    lost, won = (
        bank.disputes(bank.charge(organisation, paid(organisation, billed, stripe)))
        for _ in range(2)
    )
    named = [(f"dispute {each} (needs an answer)", 301) for each in (lost, won)]
    assert held() == {"disputed": (602, named)}
    bank.decides(lost, "lost")
    assert held() == {"disputed": (301, named[1:])}
    bank.decides(won, "won")
    assert held() == {}
    # One that was won and never came back: for a day it may be on its way.
    tamper("DELETE FROM dispute_movement WHERE kind = 'reinstated'")
    tamper(
        "UPDATE ledger_balance SET balance_minor = balance_minor + 301"
        f" WHERE tenant_id = '{organisation.id}' AND account = 'disputed'"
    )
    assert held() == {"disputed": (301, [(f"dispute {won} (won)", 301)])}
    with clock.frozen(clock.now() + timedelta(days=2)):
        [found] = clearing().found
    assert found.said.startswith("disputed of acme holds 3.01 USD, of which 3.01 USD is of no open")


def test_a_rest_is_told_with_its_amount_and_what_is_open(organisation, billed, stripe):
    unpaid = billed(organisation)
    collect(organisation.id, unpaid.id, stripe)  # no card
    paid(organisation, billed, stripe)
    assert clearing().found == []
    of = f"WHERE tenant_id = '{organisation.id}' AND account ="
    for account in ("receivable", "payments"):
        more = f"UPDATE ledger_balance SET balance_minor = balance_minor + {{}} {of} '{account}'"
        tamper(more.format(7))
        [found] = clearing().found
        assert (found.problem, found.our_amount) == ("left_over", "0.07 USD")
        assert found.said.startswith(f"{account} of acme holds ")
        assert "of which 0.07 USD is of no open item (invoice" in found.said
        tamper(more.format(-7))
    # An item that the account does not hold is a rest too.
    credited(organisation, unpaid, 100)
    tamper(f"UPDATE ledger_balance SET balance_minor = 0 {of} 'receivable'")
    [found] = clearing().found
    assert found.our_amount == "-2.01 USD"
