"""Balances are those of the legs after any walk, and a statement tells how they came about."""

import random
from collections import defaultdict
from datetime import timedelta

import pytest

from billing.ledger import movements
from billing.ledger.audit import audit
from billing.ledger.post import Leg, post
from billing.ledger.queries import balance_of, balances, list_entries, statement
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from tenants.scoping import tenant_scope
from tests.billing.ledger.rig import held, legs

pytestmark = pytest.mark.django_db
CURRENCIES = ["USD", "JPY", "KWD"]
METERS = ["revenue:input_tokens", "revenue:requests", "tax:vat"]


class Walk:
    """Random acts of a few tenants, and what every account should hold, kept beside the ledger."""

    def __init__(self, chance: random.Random, tenants: list) -> None:
        self.chance, self.tenants = chance, tenants
        self.held: dict = defaultdict(int)
        self.legs: dict = defaultdict(int)

    def credit(self, where, account: str) -> int:
        """Some of the credit there is, so that it is not overdrawn."""
        return self.chance.randint(0, -self.held[*where, account])

    def act(self, where) -> tuple:
        amount = self.chance.choice([1, 99, self.chance.randrange(1, 10**9)])
        earned = {m: self.chance.randrange(-amount, amount + 1) for m in METERS}
        finalised = movements.invoice_finalised(sum(earned.values()), earned)
        drawn = {
            "purchased_minor": self.credit(where, "credits:purchased"),
            "promotional_minor": self.credit(where, "credits:promotional"),
        }
        return self.chance.choice([
            finalised,
            movements.invoice_voided(finalised, was_written_off=self.chance.random() < 0.5),
            movements.invoice_paid(amount, was_written_off=self.chance.random() < 0.5),
            movements.invoice_written_off(amount),
            movements.credit_purchased(amount),
            movements.credit_given(amount),
            movements.credit_drawn(**drawn),
            movements.credit_expired(**drawn),
            movements.credit_refunded(drawn["purchased_minor"]),
            movements.refund_paid(amount),
            movements.credit_note({"revenue:requests": amount}, credited_minor=amount // 3),
            movements.invoice_finalised(amount, {"deferred_revenue": amount}),
            movements.invoice_finalised(
                0, {"deferred_revenue": -amount, "revenue:requests": amount}
            ),
        ])  # fmt: skip

    def step(self, number: int) -> None:
        where = (self.chance.choice(self.tenants).id, self.chance.choice(CURRENCIES))
        moved = self.act(where)
        if not moved:
            return
        first, *others = moved
        if first.amount_minor > 1 and self.chance.random() < 0.3:  # two legs of one account
            moved = (Leg(first.account, 1), Leg(first.account, first.amount_minor - 1), *others)
        with tenant_scope(where[0]):
            for _ in range(self.chance.choice([1, 1, 2])):  # repeats move nothing
                post(kind="test.step", source_id=str(number), currency=where[1], legs=moved,
                     at=clock.now())  # fmt: skip
        for leg in moved:
            self.held[*where, leg.account] += leg.amount_minor
            self.legs[*where, leg.account] += 1

    def check(self) -> None:
        for tenant in self.tenants:
            with tenant_scope(tenant.id):
                found = {
                    (tenant.id, row.currency, row.account): (row.balance_minor, row.leg_count)
                    for row in balances()
                }
            assert found == {
                key: (amount, self.legs[key])
                for key, amount in self.held.items()
                if key[0] == tenant.id and self.legs[key]
            }
        assert [v.check for v in audit() if not v.holds] == ["kinds"]  # nobody vouches for steps


@pytest.mark.parametrize("steps", [80, pytest.param(10_000, marks=pytest.mark.long)])
def test_balances_are_those_of_the_legs_after_any_walk(acme, onboard, steps):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    walk = Walk(random.Random(seed), [acme, onboard("other")])
    for number in range(steps):
        walk.step(number)
    walk.check()


def test_an_account_that_was_never_moved_holds_nothing(acme):
    with tenant_scope(acme.id):
        assert balance_of("receivable", "USD") == 0
    assert held(acme.id) == {}


@pytest.fixture
def told(acme):
    """Three days of the receivable account, the second posted last."""
    for number, day, amount in ((1, 1, 100), (2, 3, -30), (3, 2, 7)):
        moved = legs(f"receivable {amount}, revenue:requests {-amount}")
        at = clock.now() + timedelta(days=day)
        with clock.frozen(clock.now() + timedelta(seconds=number)), tenant_scope(acme.id):
            post(kind="test.day", source_id=str(number), currency="USD", legs=moved, at=at,
                 memo=f"day {day}")  # fmt: skip
    return acme


def shown(since_day, until_day, account="receivable"):
    at = [clock.now() + timedelta(days=day) for day in (since_day, until_day)]
    found = statement(account, "USD", *at)
    lines = [(line.memo, line.amount_minor, line.balance_minor) for line in found.lines]
    return found.opening_minor, lines, found.closing_minor


def test_a_statement_runs_in_order_of_what_happened_from_its_opening_balance(told):
    with tenant_scope(told.id):
        assert shown(0, 9) == (
            0, [("day 1", 100, 100), ("day 2", 7, 107), ("day 3", -30, 77)], 77,
        )  # fmt: skip
        # Half-open: the third day is not in it, the second is.
        assert shown(2, 3) == (100, [("day 2", 7, 107)], 107)
        assert shown(4, 9) == (77, [], 77)
        assert shown(0, 9, "payments") == (0, [], 0)
        assert balance_of("receivable", "USD") == 77


def test_a_statement_that_is_too_long_is_refused(told, monkeypatch):
    monkeypatch.setattr("billing.ledger.queries.STATEMENT_LEGS_MAX", 2)
    with tenant_scope(told.id):
        assert len(shown(1, 3)[1]) == 2
        with pytest.raises(CallerError) as refused:
            shown(0, 9)
    assert refused.value.code == "statement_too_long"


def test_entries_are_listed_newest_first_a_page_at_a_time(told):
    with tenant_scope(told.id):
        first = list_entries(limit=2)
        rest = list_entries(limit=2, before=first[-1].id)
        with pytest.raises(CallerError):
            list_entries(before=uuid7())
    assert [view.memo for view in first + rest] == ["day 2", "day 3", "day 1"]
