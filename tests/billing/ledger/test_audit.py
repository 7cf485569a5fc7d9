"""The audit proves a sound ledger, and names whatever was planted in an unsound one."""

import io
import json

import pytest
from django.core.management import CommandError, call_command

from billing.invoicing.advance import News, advance
from billing.ledger import movements, sources
from billing.ledger.audit import audit, post_missing
from billing.ledger.post import post
from meterplane.kernel import clock
from meterplane.kernel.invariant import InvariantBroken
from tenants.scoping import tenant_scope
from tests.billing.invoicing.drafts import draft
from tests.billing.ledger.rig import held, role, tamper

pytestmark = pytest.mark.django_db(transaction=True)
CHECKS = [
    "sums", "contents", "balances", "trial", "credit_grants", "credit_movements",
    "credit_notes", "disputes", "invoices", "recorded_payments", "refunds", "kinds",
]  # fmt: skip


@pytest.fixture
def invoices(acme, prices):
    """Two invoices of 12.00 and 3.00, the first one paid."""
    made = [draft(acme, prices, [("input_tokens", 1000), ("requests", 200)]),
            draft(acme, prices, [("requests", 300)])]  # fmt: skip
    for invoice, status in zip(made, ["paid", "open"], strict=True):
        with tenant_scope(acme.id):
            advance(invoice.id, News(status, clock.now()))
    return made


def entry(invoice, act="finalised") -> str:
    """Of this invoice, in SQL."""
    return (
        f"(SELECT id FROM ledger_entry WHERE source_id = '{invoice.id}' AND kind = 'invoice.{act}')"
    )


def failing() -> dict[str, list[str]]:
    """Per check that does not hold, its findings in words."""
    return {
        verdict.check: [f"{found.subject}: {found.what}" for found in verdict.findings]
        for verdict in audit()
        if not verdict.holds
    }


def found_id(invoice, act="finalised") -> str:
    with role("postgres") as admin:
        return str(admin.execute(f"SELECT {entry(invoice, act)}".encode()).fetchone()[0])


def told(*arguments: str) -> tuple[str, str]:
    """What the command printed, and how it failed."""
    out = io.StringIO()
    try:
        call_command("audit_ledger", *arguments, stdout=out)
    except CommandError as failed:
        return out.getvalue(), str(failed)
    return out.getvalue(), ""


def test_a_sound_ledger_is_proved(invoices):
    assert [(v.check, v.examined, v.holds) for v in audit()] == [
        ("sums", 3, True), ("contents", 3, True), ("balances", 4, True), ("trial", 1, True),
        ("credit_grants", 0, True), ("credit_movements", 0, True), ("credit_notes", 0, True),
        ("disputes", 0, True), ("invoices", 3, True), ("recorded_payments", 0, True),
        ("refunds", 0, True), ("kinds", 2, True),
    ]  # fmt: skip


def test_an_empty_ledger_is_proved(db):
    assert [v.check for v in audit() if v.holds] == CHECKS


def test_an_amount_that_was_changed(invoices):
    changed = found_id(invoices[1])
    tamper(
        "UPDATE ledger_leg SET amount_minor = 301"
        f" WHERE entry_id = {entry(invoices[1])} AND account = 'receivable'"
    )
    wrong = failing()
    assert wrong["sums"] == [f"entry {changed}: debits and credits are 1 apart"]
    assert wrong["contents"] == [f"entry {changed}: its legs are not those that were posted"]
    assert wrong["balances"] == [
        "balance of receivable in USD: is 300 of 3 legs; there are 3 legs, which add up to 301"
    ]
    assert wrong["trial"] == ["all legs in USD: add up to 1"]
    assert wrong["invoices"] == [
        f"entry {changed}: invoice.finalised of {invoices[1].id} is receivable 301,"
        " revenue:requests -300 USD; it should be receivable 300, revenue:requests -300 USD"
    ]


def test_amounts_that_were_changed_so_that_they_add_up_again(invoices):
    changed = found_id(invoices[0])
    tamper(
        f"UPDATE ledger_leg SET amount_minor = 1100 WHERE account = 'receivable'"
        f" AND entry_id = {entry(invoices[0])}",
        f"UPDATE ledger_leg SET amount_minor = -900 WHERE account = 'revenue:input_tokens'"
        f" AND entry_id = {entry(invoices[0])}",
        "UPDATE ledger_balance SET balance_minor = balance_minor - 100"
        " WHERE account = 'receivable'",
        "UPDATE ledger_balance SET balance_minor = balance_minor + 100"
        " WHERE account = 'revenue:input_tokens'",
    )
    wrong = failing()
    assert sorted(wrong) == ["contents", "invoices"]
    assert changed in wrong["contents"][0]
    assert changed in wrong["invoices"][0]


def test_a_hash_that_was_made_to_fit_does_not_hide_it_from_the_invoice(invoices):
    tamper(
        "UPDATE ledger_leg SET account = 'revenue:other' WHERE account = 'revenue:input_tokens'",
        "UPDATE ledger_balance SET account = 'revenue:other'"
        " WHERE account = 'revenue:input_tokens'",
        "UPDATE ledger_entry e SET content_hash = encode(sha256(convert_to(e.currency || E'\\n' ||"
        " (SELECT string_agg(account || ' ' || amount_minor || E'\\n', ''"
        '   ORDER BY account COLLATE "C", amount_minor) FROM ledger_leg WHERE entry_id = e.id),'
        " 'UTF8')), 'hex')",
    )
    wrong = failing()
    assert list(wrong) == ["invoices"]
    assert found_id(invoices[0]) in wrong["invoices"][0]


def test_a_leg_that_was_deleted(invoices):
    changed = found_id(invoices[1])
    tamper(f"DELETE FROM ledger_leg WHERE entry_id = {entry(invoices[1])} AND position = 2")
    wrong = failing()
    assert wrong["sums"] == [f"entry {changed}: has 1 legs, it says 2"]
    assert sorted(wrong) == ["balances", "contents", "invoices", "sums", "trial"]


def test_an_entry_that_was_deleted_without_its_legs(invoices):
    changed = found_id(invoices[1])
    tamper(f"DELETE FROM ledger_entry WHERE id = {entry(invoices[1])}")
    wrong = failing()
    assert wrong["sums"] == [f"entry {changed}: its legs are there, the entry is not"]
    assert wrong["invoices"] == [f"invoice.finalised of {invoices[1].id}: is not in the ledger"]


def test_a_payment_that_was_taken_out_without_a_trace(invoices):
    paid = entry(invoices[0], "paid")
    tamper(
        "UPDATE ledger_balance b SET balance_minor = balance_minor - l.amount_minor,"
        f" leg_count = leg_count - 1 FROM ledger_leg l WHERE l.entry_id = {paid}"
        " AND l.account = b.account",
        "DELETE FROM ledger_balance WHERE leg_count = 0",
        f"DELETE FROM ledger_leg WHERE entry_id = {paid}",
        f"DELETE FROM ledger_entry WHERE id = {paid}",
    )
    assert failing() == {"invoices": [f"invoice.paid of {invoices[0].id}: is not in the ledger"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE ledger_balance SET balance_minor = balance_minor + 1", "is 301 of 3 legs; there"),
        ("UPDATE ledger_balance SET leg_count = leg_count + 1", "is 300 of 4 legs; there are 3"),
        ("DELETE FROM ledger_balance", "is missing of 0 legs; there are 3 legs"),
    ],
)
def test_a_balance_that_was_changed(invoices, change, said):
    tamper(change + " WHERE account = 'receivable'")
    (found,) = failing()["balances"]
    assert found.startswith("balance of receivable in USD: ")
    assert said in found


def test_an_entry_that_nothing_calls_for(invoices, acme):
    with tenant_scope(acme.id):
        moved = movements.invoice_paid(300)
        surplus = post(kind="invoice.paid", source_id=invoices[1].id, currency="USD", legs=moved,
                       at=clock.now())  # fmt: skip
    assert failing() == {
        "invoices": [f"entry {surplus}: nothing calls for invoice.paid of {invoices[1].id}"]
    }


def test_an_invoice_that_was_changed_behind_its_entries(invoices):
    tamper(f"UPDATE invoice_line SET amount_minor = 7 WHERE invoice_id = '{invoices[1].id}'")
    (first, _) = failing()["invoices"]
    assert first == f"invoice {invoices[1].id}: an invoice's parts add up to its total"


def test_an_entry_of_a_kind_that_nobody_vouches_for(acme):
    with tenant_scope(acme.id):
        made = post(kind="gift", source_id="1", currency="USD", legs=movements.invoice_paid(1),
                    at=clock.now())  # fmt: skip
    assert failing() == {"kinds": [f"entry {made}: nobody vouches for the kind gift"]}


def test_two_sources_do_not_share_a_kind():
    kinds = frozenset({"invoice.paid"})
    with pytest.raises(InvariantBroken, match="the same kind"):
        sources.register(sources.Source("others", "each", kinds, lambda _: sources.Page((), None)))


def test_invoices_from_before_the_ledger_are_told_of_and_posted_once(invoices, acme):
    before = held(acme.id)
    tamper(*[f"DELETE FROM {table}" for table in ("ledger_balance", "ledger_leg", "ledger_entry")])
    assert len(failing()["invoices"]) == 3
    assert post_missing() == 3
    assert failing() == {}
    assert held(acme.id) == before
    assert post_missing() == 0


def test_an_older_invoice_gets_its_first_entry_with_its_next_step(invoices, acme):
    tamper(*[f"DELETE FROM {table}" for table in ("ledger_balance", "ledger_leg", "ledger_entry")])
    with tenant_scope(acme.id):
        advance(invoices[1].id, News("void", clock.now()))
    assert held(acme.id) == {}
    assert len(failing()["invoices"]) == 2  # of the other invoice


def test_pages_of_invoices_are_all_read(invoices, monkeypatch):
    monkeypatch.setattr("billing.invoicing.record.INVOICES_PER_PAGE", 1)
    assert [v.examined for v in audit() if v.check == "invoices"] == [3]
    tamper(*[f"DELETE FROM {table}" for table in ("ledger_balance", "ledger_leg", "ledger_entry")])
    assert post_missing() == 3


def test_the_command_prints_a_table_and_succeeds(invoices):
    out, failed = told()
    assert failed == ""
    assert [line.split()[:4] for line in out.splitlines()[1:-1]] == [
        ["sums", "3", "0", "pass"], ["contents", "3", "0", "pass"], ["balances", "4", "0", "pass"],
        ["trial", "1", "0", "pass"], ["credit_grants", "0", "0", "pass"],
        ["credit_movements", "0", "0", "pass"], ["credit_notes", "0", "0", "pass"],
        ["disputes", "0", "0", "pass"], ["invoices", "3", "0", "pass"],
        ["recorded_payments", "0", "0", "pass"], ["refunds", "0", "0", "pass"],
        ["kinds", "2", "0", "pass"],
    ]  # fmt: skip
    assert out.endswith("The ledger is proved.\n")


def test_the_command_names_what_is_wrong_and_fails(invoices, acme):
    changed = found_id(invoices[1])
    tamper(f"DELETE FROM ledger_leg WHERE entry_id = {entry(invoices[1])} AND position = 2")
    out, failed = told()
    assert failed == "5 of 12 checks fail: sums, contents, balances, trial, invoices"
    assert f"    organisation {acme.id}: entry {changed}: has 1 legs, it says 2\n" in out
    assert "proved" not in out
    out, failed = told("--json")
    assert failed
    object_ = json.loads(out)
    assert object_["verdict"] == "fail"
    assert object_["checks"][0] == {
        "check": "sums", "proves": "every entry has its legs, and they add up to zero",
        "examined": 3, "verdict": "fail",
        "findings": [{
            "organisation": str(acme.id), "subject": f"entry {changed}",
            "what": "has 1 legs, it says 2",
        }],
    }  # fmt: skip


def test_the_command_posts_what_is_missing_when_told_to(invoices):
    tamper(*[f"DELETE FROM {table}" for table in ("ledger_balance", "ledger_leg", "ledger_entry")])
    assert told()[1] == "1 of 12 checks fail: invoices"
    out, failed = told("--post-missing")
    assert (failed, out.splitlines()[0]) == ("", "3 missing entries posted.")
    assert json.loads(told("--post-missing", "--json")[0])["posted"] == 0
