"""Both sides are compared through the real sandbox: what differs is found, told and closed."""

import io
import json
import logging
from datetime import timedelta
from threading import Barrier, Thread
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from billing.ledger.audit import audit
from billing.payments.accounts import attach_test_card
from billing.payments.collect import collect
from billing.payments.models import PaymentFinding, PaymentRun, ReconciledDay
from billing.payments.reconcile import days
from billing.payments.reconcile.acknowledge import acknowledge
from billing.payments.reconcile.days import reconcile_day
from billing.payments.reconcile.look import look
from billing.payments.reconcile.looked import Looked
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from tenants.scoping import system_scope, tenant_scope
from tests.billing.ledger.rig import held, tamper
from tests.billing.payments.reconcile.rig import LATER, reconciled
from tests.billing.payments.reconcile.rig import sandbox as sandbox
from tests.billing.payments.rig import Faulty, Killed, customer_of, read

pytestmark = pytest.mark.django_db(transaction=True)


def paid(tenant, billed, stripe):
    attach_test_card(tenant.id, stripe)
    invoice = billed(tenant)
    assert collect(tenant.id, invoice.id, stripe).status == "paid"
    return invoice


def test_sides_that_agree_give_no_finding_and_clearing_accounts_are_at_zero(
    onboard, billed, stripe, there
):
    """Paid, open, voided there, written off there, paid there elsewhere; and one that its balance
    pays in part.

    `receivable` clears between an invoice and its payment: it holds what open invoices are about,
    and of the others nothing; `payments` holds what the provider says that it got.
    """
    tenants = [onboard(name) for name in ("paid", "open", "void", "written", "balance", "cash")]
    for tenant in (*tenants[1:4], tenants[5]):
        collect(tenant.id, billed(tenant).id, stripe)  # no card: open
    for tenant, act in ((tenants[2], "void_invoice"), (tenants[3], "mark_uncollectible")):
        [theirs] = there.invoices(tenant)
        getattr(there.client.v1.invoices, act)(theirs.id)
    [theirs] = there.invoices(tenants[5])
    there.client.v1.invoices.pay(theirs.id, {"paid_out_of_band": True})
    paid(tenants[0], billed, stripe)
    attach_test_card(tenants[4].id, stripe)
    credit = {"amount": -200, "currency": "usd"}
    customer = customer_of(tenants[4].id)
    there.client.v1.customers.balance_transactions.create(customer, credit)  # type: ignore[arg-type]
    paid(tenants[4], billed, stripe)
    assert reconciled(stripe) == []
    with system_scope("test"):
        assert sum(ReconciledDay.objects.values_list("compared", flat=True)) == 6 + 6 + 3
    assert [held(tenant.id).get("receivable", 0) for tenant in tenants] == [0, 301, 0, 0, 0, 0]
    got = [sum(each.amount_paid for each in there.invoices(tenant)) for tenant in tenants]
    assert got == [301, 0, 0, 0, 101, 301]
    assert held(tenants[0].id)["payments"] == 301
    assert all(verdict.holds for verdict in audit())


def test_theirs_without_ours(organisation, billed, stripe, there):
    invoice = paid(organisation, billed, stripe)
    invoices, customer = there.client.v1.invoices, customer_of(organisation.id)
    for metadata in ({}, {"meterplane_invoice": str(invoice.id)}, {"meterplane_invoice": "gone"}):
        invoices.create({"customer": customer, "currency": "usd", "metadata": metadata})
    other = there.client.v1.customers.create({"name": "of nobody here"}).id
    invoices.create({"customer": other, "currency": "usd"})
    found = reconciled(stripe)
    assert {each[:2] for each in found} == {("invoice", "missing_here")}
    said = "\n".join(sorted(each[2] for each in found))
    for part in ("not made by us", "a second one of invoice ACME-000001", "names gone as ours"):
        assert part in said
    assert len(found) == 3


def test_what_a_run_has_just_made_is_not_missing_here(organisation, billed, stripe):
    """It dies when the draft is there, before it could note it."""
    attach_test_card(organisation.id, stripe)
    invoice = billed(organisation)
    with pytest.raises(Killed):
        collect(organisation.id, invoice.id, Faulty(stripe, 1, after=True, fail=Killed))
    today = clock.now().date()
    assert reconcile_day(stripe, today).open_findings == 0
    assert [each[1] for each in reconciled(stripe)] == ["missing_here"]
    with clock.frozen(clock.now() + timedelta(minutes=6)):
        collect(organisation.id, invoice.id, stripe)
    assert reconciled(stripe) == []


def test_ours_without_theirs(organisation, billed, stripe, there):
    attach_test_card(organisation.id, stripe)
    deleted, never = billed(organisation), billed(organisation)
    with pytest.raises(Killed):
        collect(organisation.id, deleted.id, Faulty(stripe, 3, after=False, fail=Killed))
    with tenant_scope(organisation.id):
        their_id = PaymentRun.objects.get().provider_invoice_id
    there.client.v1.invoices.delete(str(their_id))
    [found] = reconciled(stripe)
    assert found[:2] == ("invoice", "missing_there")
    assert f"is {their_id} by our books, which is not there" in found[2]
    with clock.frozen(clock.now() + timedelta(days=1)):
        assert len(told := reconciled(stripe)) == 2
    assert f"invoice {never.id}, 3.01 USD, is draft here and was not brought there yet" in str(told)


def test_news_on_its_way_is_no_difference(organisation, billed, stripe, there):
    invoice = billed(organisation)
    collect(organisation.id, invoice.id, stripe)
    attach_test_card(organisation.id, stripe)
    [theirs] = there.invoices(organisation)
    there.client.v1.invoices.pay(theirs.id)  # and nobody is told
    assert reconciled(stripe) == []
    assert read(organisation.id, invoice).status == "paid"


def test_a_payment_that_our_books_have_otherwise_is_found_opened_once_and_closed(
    organisation, billed, stripe, caplog
):
    paid(organisation, billed, stripe)
    # Only a superuser can: by a cent, on both sides of the entry.
    legs = "ledger_leg l SET amount_minor = l.amount_minor + {} * sign(l.amount_minor)"
    of_paid = "FROM ledger_entry e WHERE e.id = l.entry_id AND e.kind = 'invoice.paid'"
    tamper(f"UPDATE {legs.format('1')} {of_paid}")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            [of_account, found] = reconciled(stripe)
    assert found[:2] == ("payment", "different")
    assert of_account[:2] == ("clearing", "left_over")
    assert "amount ours 3.02 USD, theirs 3.01 USD" in found[2]
    assert len([each for each in caplog.records if "do not add up" in each.message]) == 2
    tamper(f"UPDATE {legs.format('-1')} {of_paid}")
    assert reconciled(stripe) == []
    with system_scope("test"):
        closed = PaymentFinding.objects.get(kind="payment")
    assert closed.opened_at <= closed.seen_at <= closed.closed_at


def test_what_a_worker_holds_is_neither_told_nor_taken_back(organisation, billed, stripe, there):
    paid(organisation, billed, stripe)
    [theirs] = there.invoices(organisation)

    def hold(until: timedelta | None) -> None:
        with tenant_scope(organisation.id):
            PaymentRun.objects.update(
                lease_token=uuid7() if until else None,
                lease_until=clock.now() + until if until else None,
            )

    hold(LATER + timedelta(minutes=1))
    before = there.sandbox.control(f"/objects/{theirs.id}", {"total": 302})
    assert reconciled(stripe) == []
    hold(None)
    [found] = reconciled(stripe)
    assert found[:2] == ("invoice", "different")
    hold(LATER + timedelta(minutes=1))
    assert len(reconciled(stripe)) == 1
    there.sandbox.control(f"/objects/{theirs.id}", before)
    assert reconciled(stripe) == []


def test_found_by_several_at_once_it_is_opened_once(
    organisation, billed, stripe, there, monkeypatch
):
    paid(organisation, billed, stripe)
    today, failed = clock.now().date(), list[BaseException]()
    assert reconcile_day(stripe, today).open_findings == 0
    [theirs] = there.invoices(organisation)
    there.sandbox.control(f"/objects/{theirs.id}", {"total": 302})
    ready = Barrier(3)

    def looked_by_all(*window: Any) -> list[Looked]:
        found = look(*window)
        ready.wait(30)
        return found

    monkeypatch.setattr(days, "look", looked_by_all)

    def compare() -> None:
        try:
            reconcile_day(stripe, today)
        except BaseException as problem:
            failed.append(problem)
        finally:
            connections.close_all()

    workers = [Thread(target=compare) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert failed == []
    with system_scope("test"):
        [row] = PaymentFinding.objects.all()
        [day] = ReconciledDay.objects.all()
    assert (row.our_amount, row.their_amount) == ("3.01 USD", "3.02 USD")
    assert day.counts["invoice"] == {"compared": 1, "agreed": 0}
    assert day.counts["payment"] == {"compared": 1, "agreed": 1}


def test_what_is_acknowledged_stays_open_and_is_not_when_it_changes(
    organisation, billed, stripe, there, caplog
):
    paid(organisation, billed, stripe)
    [theirs] = there.invoices(organisation)
    before = there.sandbox.control(f"/objects/{theirs.id}", {"total": 302})
    assert len(reconciled(stripe)) == 1

    def finding() -> PaymentFinding:
        with system_scope("test"):
            return PaymentFinding.objects.get()

    acknowledge(finding().id, by="op@example.com", note=" Stripe is asked. ")
    assert len(reconciled(stripe)) == 1
    known = finding()
    assert (known.acknowledged_by, known.acknowledgement) == ("op@example.com", "Stripe is asked.")
    there.sandbox.control(f"/objects/{theirs.id}", {"total": 303})
    with caplog.at_level(logging.ERROR):
        assert len(reconciled(stripe)) == 1
    assert "otherwise than acknowledged" in caplog.text
    assert (finding().acknowledged_at, finding().acknowledgement) == (None, "")
    there.sandbox.control(f"/objects/{theirs.id}", before)
    assert reconciled(stripe) == []
    for wrong, finding_id, note in (
        ("finding_closed", finding().id, "late"),
        ("finding_not_found", uuid7(), "none"),
        ("note_invalid", finding().id, " "),
        ("note_invalid", finding().id, "x" * 401),
    ):
        with pytest.raises(CallerError) as refused:
            acknowledge(finding_id, by="op", note=note)
        assert refused.value.code == wrong


def test_what_is_left_in_a_clearing_account_is_found_until_it_is_gone(organisation, billed, stripe):
    paid(organisation, billed, stripe)
    left = "UPDATE ledger_balance SET balance_minor = {} WHERE account = 'receivable'"
    tamper(left.format(7))
    [found] = reconciled(stripe)
    assert found == (
        *("clearing", "left_over"),
        "receivable of acme holds 0.07 USD, of which 0.07 USD is of no open item (nothing is open)",
    )
    tamper(left.format(0))
    assert reconciled(stripe) == []


def test_the_command_tells_days_kinds_accounts_and_findings_and_fails_on_one(
    organisation, billed, stripe, there
):
    def said(**options: Any) -> tuple[str, str]:
        out, why = io.StringIO(), ""
        with clock.frozen(clock.now() + LATER):
            try:
                call_command("reconcile_payments", stdout=out, **options)
            except CommandError as failed:
                why = str(failed)
        return out.getvalue(), why

    paid(organisation, billed, stripe)
    told, why = said()
    assert why == ""
    assert told.endswith("Ours and theirs agree.\n")
    lines = [" ".join(line.split()) for line in told.splitlines()]
    for line in ("invoices 1 1", "payments 1 1", "payments acme 3.01 USD 0.00 USD 1"):
        assert line in lines, told
    customer = customer_of(organisation.id)
    there.client.v1.invoices.create({"customer": customer, "currency": "usd"})
    told, why = said()
    assert why == "1 findings are open."
    assert "Invoice, Missing here: invoice in_" in told
    told, why = said(json=True)
    document = json.loads(told)
    assert (document["verdict"], why) == ("fail", "1 findings are open.")
    assert document["kinds"]["invoice"] == {"compared": 2, "agreed": 1}
    [finding] = document["findings"]
    assert (finding["kind"], finding["problem"], finding["ours"]) == (
        "invoice",
        "missing_here",
        None,
    )
    [account] = [each for each in document["clearing"] if each["account"] == "payments"]
    assert (account["balance"], account["unexplained"]) == ("3.01", "0.00")
    for since in ("soon", "2020-01-01", "2099-01-01"):
        assert since in said(since=since)[1]
