"""The chart of accounts, and that the code and PostgreSQL have the same one."""

import pytest

from billing.ledger.accounts import ACCOUNTS, Group, Side, account_of, revenue, tax
from meterplane.kernel.invariant import InvariantBroken
from tests.billing.ledger.rig import role

CHART = """
    receivable            asset      debit
    payments              asset      debit
    disputed              asset      debit
    credits:purchased     liability  credit  never turns
    credits:promotional   liability  credit  never turns
    deferred_revenue      liability  credit
    tax:*                 liability  credit
    refunds               liability  credit
    customer_balance      liability  credit
    revenue:*             income     credit
    breakage              income     credit
    promotions            expense    debit
    goodwill            expense    debit
    bad_debt              expense    debit
    dispute_losses        expense    debit
    dispute_fees          expense    debit
    rounding              expense    debit
"""
UNKNOWN = [
    "", "cash", "Receivable", "receivable:1", "revenue", "revenue:", "revenue:*", "revenue: x",
    "revenue:a b", "revenue:a:b", "tax:", "credits", "credits:other", "revenue:" + "m" * 65,
    "receivable\n", " receivable",
]  # fmt: skip
NAMES = [each.name.replace("*", "x") for each in ACCOUNTS] + [
    revenue("input_tokens"), revenue("gpu-seconds"), revenue("m" * 64), tax("de.vat-19"),
]  # fmt: skip


def test_each_account_has_its_group_and_its_normal_side():
    shown = [
        f"{each.name} {each.group} {each.side}{' never turns' if each.never_turns else ''}"
        for each in ACCOUNTS
    ]
    assert shown == [" ".join(line.split()) for line in CHART.strip().splitlines()]
    assert all(each.increased_by and each.decreased_by for each in ACCOUNTS)


def test_a_member_of_a_family_is_of_it():
    assert account_of(revenue("input_tokens")).group is Group.INCOME
    assert account_of(tax("vat")).side is Side.CREDIT


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_an_account_is_refused(name):
    with pytest.raises(InvariantBroken):
        account_of(name)


@pytest.mark.django_db
def test_postgresql_knows_the_same_accounts(organisation):
    for name in NAMES:
        account_of(name)
    with role("postgres") as admin:
        (definition,) = admin.execute(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE conname = 'ledger_leg_account_known'"
        ).fetchone()
        (overdrawn,) = admin.execute(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE conname = 'ledger_balance_credit_not_overdrawn'"
        ).fetchone()
        condition = definition.removeprefix("CHECK ").encode()
        known = {
            name: admin.execute(
                b"SELECT " + condition + b" FROM (SELECT %s::text AS account) leg", [name]
            ).fetchone()[0]
            for name in NAMES + UNKNOWN
        }
    assert known == {name: name in NAMES for name in NAMES + UNKNOWN}
    for each in ACCOUNTS:
        assert (f"'{each.name}'" in overdrawn) == each.never_turns
