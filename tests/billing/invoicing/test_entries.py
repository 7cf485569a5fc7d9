"""The entries an invoice calls for. A test's docstring is the ledger it runs on."""

import inspect
from datetime import timedelta

import pytest
from hypothesis import strategies as st

from billing.invoicing.advance import _WAY
from billing.invoicing.entries import WRITTEN_OFF, Invoiced, entries_of
from billing.ledger.entry import Entry
from meterplane.kernel.ids import uuid7
from meterplane.kernel.invariant import InvariantBroken
from tests.billing.properties import holds_for
from tests.billing.world import utc

FINALISED, PAID, MOVED = utc(11, 1), utc(11, 3), utc(11, 9)
EARNED = {"revenue:input_tokens": 200, "revenue:requests": 5}


@pytest.fixture
def ledger(request) -> str:
    """What the test says in its docstring."""
    return inspect.cleandoc(request.function.__doc__)


def invoiced(status, earned=EARNED, **other) -> Invoiced:
    values = {
        "id": uuid7(), "name": "Invoice ACME-000001", "currency": "USD",
        "total_minor": sum(earned.values()), "finalised_at": FINALISED, "moved_at": MOVED,
        "paid_at": PAID if status == "paid" else None,
    }  # fmt: skip
    return Invoiced(status=status, earned=earned, **values | other)


def as_ledger(entries: list[Entry]) -> str:
    """Day and memo of each entry, then its legs."""
    lines = []
    for entry in entries:
        lines.append(f"{entry.at:%Y-%m-%d} {entry.memo}")
        lines += [f"    {leg.account:<22}{leg.amount_minor:>6}" for leg in entry.legs]
    return "\n".join(lines)


def test_an_open_invoice(ledger):
    """
    2026-11-01 Invoice ACME-000001 finalised
        receivable               205
        revenue:input_tokens    -200
        revenue:requests          -5
    """
    assert as_ledger(entries_of(invoiced("open"))) == ledger


def test_a_paid_invoice(ledger):
    """
    2026-11-01 Invoice ACME-000001 finalised
        receivable               205
        revenue:input_tokens    -200
        revenue:requests          -5
    2026-11-03 Invoice ACME-000001 paid
        payments                 205
        receivable              -205
    """
    assert as_ledger(entries_of(invoiced("paid"))) == ledger


def test_a_void_invoice(ledger):
    """
    2026-11-01 Invoice ACME-000001 finalised
        receivable               205
        revenue:input_tokens    -200
        revenue:requests          -5
    2026-11-09 Invoice ACME-000001 voided
        receivable              -205
        revenue:input_tokens     200
        revenue:requests           5
    """
    assert as_ledger(entries_of(invoiced("void"))) == ledger


def test_an_uncollectible_invoice(ledger):
    """
    2026-11-01 Invoice ACME-000001 finalised
        receivable               205
        revenue:input_tokens    -200
        revenue:requests          -5
    2026-11-09 Invoice ACME-000001 written off
        bad_debt                 205
        receivable              -205
    """
    assert as_ledger(entries_of(invoiced("uncollectible"))) == ledger


def test_an_invoice_that_is_paid_after_it_was_written_off(ledger):
    """
    2026-11-01 Invoice ACME-000001 finalised
        receivable               205
        revenue:input_tokens    -200
        revenue:requests          -5
    2026-11-09 Invoice ACME-000001 written off
        bad_debt                 205
        receivable              -205
    2026-11-03 Invoice ACME-000001 paid
        payments                 205
        bad_debt                -205
    """
    assert as_ledger(entries_of(invoiced("paid", was_written_off=True))) == ledger


def test_an_invoice_that_is_voided_after_it_was_written_off(ledger):
    """
    2026-11-01 Invoice ACME-000001 finalised
        receivable               205
        revenue:input_tokens    -200
        revenue:requests          -5
    2026-11-09 Invoice ACME-000001 written off
        bad_debt                 205
        receivable              -205
    2026-11-09 Invoice ACME-000001 voided
        bad_debt                -205
        revenue:input_tokens     200
        revenue:requests           5
    """
    assert as_ledger(entries_of(invoiced("void", was_written_off=True))) == ledger


def test_corrections_of_an_older_period_that_are_more_than_what_was_used(ledger):
    """
    2026-11-01 Invoice ACME-000001 finalised
        receivable               -80
        revenue:input_tokens     100
        revenue:requests         -20
    2026-11-03 Invoice ACME-000001 paid
        payments                 -80
        receivable                80
    """
    earned = {"revenue:input_tokens": -100, "revenue:requests": 20}
    assert as_ledger(entries_of(invoiced("paid", earned))) == ledger


def test_lines_that_cancel_out_move_revenue_and_leave_nothing_to_pay(ledger):
    """
    2026-11-01 Invoice ACME-000001 finalised
        revenue:input_tokens     100
        revenue:requests        -100
    """
    earned = {"revenue:input_tokens": -100, "revenue:requests": 100}
    assert as_ledger(entries_of(invoiced("paid", earned))) == ledger


@pytest.mark.parametrize("status", ["open", "paid", "void", "uncollectible"])
@pytest.mark.parametrize("earned", [{}, {"revenue:requests": 0}])
def test_an_invoice_of_nothing_has_no_entries(status, earned):
    assert entries_of(invoiced(status, earned)) == []


def test_a_draft_has_no_entries():
    assert entries_of(invoiced("draft", finalised_at=None)) == []


def test_an_invoice_whose_lines_are_not_its_total_is_refused():
    with pytest.raises(InvariantBroken, match="add up"):
        entries_of(invoiced("open", total_minor=206))


def test_an_entry_is_the_same_whenever_it_is_worked_out():
    invoice = invoiced("void", was_written_off=True)
    later = invoiced("void", was_written_off=True, id=invoice.id, moved_at=MOVED + timedelta(9))
    hashes = [[(e.kind, e.content_hash) for e in entries_of(i)] for i in (invoice, later)]
    assert hashes[0] == hashes[1]


STATES = ["draft", "open", "paid", "void", "uncollectible"]
amounts = st.one_of(st.integers(-9, 9), st.integers(-(10**12), 10**12))
earned_by_account = st.dictionaries(
    st.sampled_from(["revenue:input_tokens", "revenue:requests", "tax:vat"]), amounts
)


@holds_for(earned_by_account, st.lists(st.sampled_from(STATES), max_size=6), quick_examples=100)
def test_any_moves_leave_what_is_open_in_receivable_and_every_account_zero_in_sum(earned, told):
    """As `advance` and `record` do it, with a dictionary for a ledger."""
    state, ledger, of = "draft", {}, {"id": uuid7()}
    for news in told:
        for step in _WAY.get((state, news), ()):
            left, state = state, step
            invoice = invoiced(state, earned, was_written_off=left == "uncollectible", **of)
            for entry in entries_of(invoice):
                known = ledger.setdefault(entry.kind, entry)
                assert known.content_hash == entry.content_hash
    balances = dict.fromkeys(["receivable", "payments", "bad_debt", *earned], 0)
    for leg in [leg for entry in ledger.values() for leg in entry.legs]:
        balances[leg.account] += leg.amount_minor
    total = sum(earned.values())
    due = {"receivable": "open", "payments": "paid", "bad_debt": "uncollectible"}
    is_earned = state not in ("draft", "void")
    assert balances == {
        **{account: total if state == holds else 0 for account, holds in due.items()},
        **{account: -amount if is_earned else 0 for account, amount in earned.items()},
    }
    assert sum(balances.values()) == 0
    # And it is what the audit will expect of an invoice in this state.
    expected = entries_of(invoiced(state, earned, was_written_off=WRITTEN_OFF in ledger, **of))
    assert {entry.kind: entry.content_hash for entry in expected} == {
        kind: entry.content_hash for kind, entry in ledger.items()
    }
