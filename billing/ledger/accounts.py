"""The chart of accounts: what each is, its normal side, and what increases it.

Every tenant has these accounts in every currency it is billed in. A leg debits an account with a
positive amount and credits it with a negative one; so an asset has a positive balance, what we owe
and what we earned a negative one, and all balances of a currency add up to zero.

A family, written `revenue:*`, has one account for each name after the colon. PostgreSQL knows the
same names (`ledger_leg_account_known`) and refuses every other; a test holds both lists together.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from meterplane.kernel.invariant import InvariantBroken

ACCOUNT_NAME_MAX = 80
_MEMBER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Side(StrEnum):
    """Where an account's balance is as a rule."""

    DEBIT = "debit"
    CREDIT = "credit"


class Group(StrEnum):
    """What an account tells of."""

    ASSET = "asset"
    LIABILITY = "liability"
    INCOME = "income"
    EXPENSE = "expense"


NORMAL_SIDE = {
    Group.ASSET: Side.DEBIT,
    Group.EXPENSE: Side.DEBIT,
    Group.LIABILITY: Side.CREDIT,
    Group.INCOME: Side.CREDIT,
}


@dataclass(frozen=True, slots=True)
class Account:
    """`never_turns`: its balance is never on the other side, and PostgreSQL refuses it there."""

    name: str
    group: Group
    increased_by: str
    decreased_by: str
    never_turns: bool = False

    @property
    def side(self) -> Side:
        """Its normal side."""
        return NORMAL_SIDE[self.group]

    @property
    def is_family(self) -> bool:
        """Whether `name` stands for one account of each name after the colon."""
        return self.name.endswith(":*")


RECEIVABLE = "receivable"
PAYMENTS = "payments"
CREDITS_PURCHASED = "credits:purchased"
CREDITS_PROMOTIONAL = "credits:promotional"
DEFERRED_REVENUE = "deferred_revenue"
REFUNDS = "refunds"
CUSTOMER_BALANCE = "customer_balance"
BREAKAGE = "breakage"
PROMOTIONS = "promotions"
GOODWILL = "goodwill"
BAD_DEBT = "bad_debt"
DISPUTED = "disputed"
DISPUTE_LOSSES = "dispute_losses"
DISPUTE_FEES = "dispute_fees"
ROUNDING = "rounding"

_G = Group
ACCOUNTS: tuple[Account, ...] = (
    Account(RECEIVABLE, _G.ASSET, "an invoice is finalised", "it is paid, voided or written off"),
    Account(
        PAYMENTS, _G.ASSET,
        "a customer paid at the provider, which has the money until it is in our bank",
        "money was paid back, or arrived in our bank",
    ),
    Account(
        DISPUTED, _G.ASSET, "a bank took back what was paid, which may yet be ours",
        "it gave it back, credit that was bought with it is gone, or the dispute is lost",
    ),
    Account(
        CREDITS_PURCHASED, _G.LIABILITY, "credit was bought, or given back after a correction",
        "it is drawn, expires or is refunded", never_turns=True,
    ),
    Account(
        CREDITS_PROMOTIONAL, _G.LIABILITY, "credit was given, or given back after a correction",
        "it is drawn or expires", never_turns=True,
    ),
    Account(
        DEFERRED_REVENUE, _G.LIABILITY, "an interim invoice bills a period that is not over",
        "the period's own invoice takes that back: revenue",
    ),
    Account("tax:*", _G.LIABILITY, "tax was invoiced", "an invoice is corrected; it is remitted"),
    Account(
        REFUNDS, _G.LIABILITY, "we said that money will be paid back", "the provider paid it back"
    ),
    Account(
        CUSTOMER_BALANCE, _G.LIABILITY, "a customer paid more than was due",
        "it is paid back or pays for something",
    ),
    Account("revenue:*", _G.INCOME, "use of a meter was invoiced", "an invoice is corrected"),
    Account(BREAKAGE, _G.INCOME, "bought credit expired unused", "such an expiry is corrected"),
    Account(
        PROMOTIONS, _G.EXPENSE, "promotional credit was given", "it expired without being used"
    ),
    Account(
        GOODWILL, _G.EXPENSE, "money was paid back that no correction stands for",
        "paying it back failed",
    ),
    Account(BAD_DEBT, _G.EXPENSE, "an invoice is written off", "it is paid or voided after all"),
    Account(
        DISPUTE_LOSSES, _G.EXPENSE, "a dispute is lost", "its money came back after all"
    ),
    Account(
        DISPUTE_FEES, _G.EXPENSE, "the provider asked a fee for a dispute", "it gave the fee back"
    ),
    Account(
        ROUNDING, _G.EXPENSE, "parts that were rounded are less than their whole",
        "they are more than it",
    ),
)  # fmt: skip
_BY_NAME = {account.name: account for account in ACCOUNTS}


def find_account(name: str) -> Account | None:
    """The account, or the family it is of; None for any other name."""
    found = _BY_NAME.get(name)
    if found is not None and not found.is_family:
        return found
    family, colon, member = name.partition(":")
    return _BY_NAME.get(f"{family}:*") if colon and _MEMBER.fullmatch(member) else None


def account_of(name: str) -> Account:
    """`find_account` of a name that is ours. Raises `InvariantBroken` when there is none."""
    found = find_account(name)
    if found is None:
        raise InvariantBroken(f"{name!r} is not an account of the ledger")
    return found


def revenue(meter: str) -> str:
    """Where the use of a meter is earned."""
    return f"revenue:{meter}"


def tax(name: str) -> str:
    """Where what is collected for a tax is held."""
    return f"tax:{name}"
