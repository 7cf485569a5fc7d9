"""The ledger over the control API: balances, entries a page at a time, and statements."""

from datetime import timedelta

import pytest

from billing.ledger.post import post
from meterplane.kernel import clock
from tenants.scoping import tenant_scope
from tests.api.test_limits_api import AT, Operator
from tests.billing.ledger.rig import legs
from tests.billing.world import utc

pytestmark = pytest.mark.django_db
LEDGER = f"{AT}/ledger"
STATEMENT = f"{LEDGER}/statement?currency=USD&since=2026-11-01T00:00:00Z&until=2026-12-01T00:00:00Z"


@pytest.fixture
def operator(organisation):
    return Operator()


@pytest.fixture
def entries(organisation):
    """Five entries, of a day and 1.01 each; their ids, the newest first."""
    made = []
    for day in range(1, 6):
        moved = legs("receivable 101, revenue:requests -100, tax:vat -1")
        with clock.frozen(utc(11, day)), tenant_scope(organisation.id):
            made.append(
                post(kind="test.day", source_id=f"{day}", currency="USD", legs=moved,
                     at=clock.now() - timedelta(hours=1), memo=f"day {day}")
            )  # fmt: skip
    return [str(entry_id) for entry_id in reversed(made)]


def test_balances_and_entries_are_told_exactly(operator, entries):
    told = operator.ask("get", f"{LEDGER}?limit=1")
    assert told["balances"] == [
        {"account": "receivable", "currency": "USD", "group": "asset", "normal_side": "debit",
         "balance": "5.05"},
        {"account": "revenue:requests", "currency": "USD", "group": "income",
         "normal_side": "credit", "balance": "-5.00"},
        {"account": "tax:vat", "currency": "USD", "group": "liability", "normal_side": "credit",
         "balance": "-0.05"},
    ]  # fmt: skip
    assert told["entries"] == [
        {
            "id": entries[0], "kind": "test.day", "source_id": "5", "currency": "USD",
            "memo": "day 5", "effective_at": "2026-11-04T23:00:00Z",
            "created_at": "2026-11-05T00:00:00Z",
            "legs": [
                {"account": "receivable", "amount": "1.01"},
                {"account": "revenue:requests", "amount": "-1.00"},
                {"account": "tax:vat", "amount": "-0.01"},
            ],
        }
    ]  # fmt: skip
    assert told["next_cursor"] == entries[0]


def test_pages_follow_one_another_without_a_gap(operator, entries):
    seen, cursor = [], ""
    while cursor is not None:
        page = operator.ask("get", f"{LEDGER}?limit=2" + (f"&cursor={cursor}" if cursor else ""))
        seen += [each["id"] for each in page["entries"]]
        cursor = page["next_cursor"]
    assert seen == entries


def test_a_statement_has_the_balance_after_each_movement(operator, entries):
    told = operator.ask("get", f"{STATEMENT}&account=receivable")
    assert (told["opening"], told["closing"]) == ("1.01", "5.05")
    assert [(each["memo"], each["amount"], each["balance"]) for each in told["lines"]] == [
        ("day 2", "1.01", "2.02"), ("day 3", "1.01", "3.03"), ("day 4", "1.01", "4.04"),
        ("day 5", "1.01", "5.05"),
    ]  # fmt: skip


def test_what_cannot_be_asked_is_refused(operator):
    for address, field in [
        (f"{LEDGER}?limit=0", "limit"),
        (f"{LEDGER}?limit=200", "limit"),
        (f"{LEDGER}?cursor=x", "cursor"),
        (f"{LEDGER}?cursor=019ac000-0000-7000-8000-000000000000", "cursor"),
        (f"{STATEMENT}&account=cash", "account"),
        (f"{STATEMENT.replace('USD', 'XXX')}&account=receivable", "currency"),
        (f"{STATEMENT.replace('2026-11-01T00', 'soon')}&account=receivable", "since"),
    ]:
        assert field in str(operator.ask("get", address, status=400))
