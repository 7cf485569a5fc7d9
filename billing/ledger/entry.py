"""An entry of the ledger as a value: what moves, between which accounts, and why.

Guarantees: an `Entry` that exists is whole. It has at least two legs, none of them empty, and they
add up to zero; accounts are known and everything is within its bounds. So what is posted, compared
by the audit or written in a test's table has been checked where it was made.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime

from billing.ledger.accounts import ACCOUNT_NAME_MAX, account_of
from meterplane.kernel.invariant import ensure
from meterplane.kernel.money import minor_digits

# An invoice has 250 lines at most, and a leg for each meter and tax of it, and what it is due.
LEGS_MAX = 500
# Ten trillion dollars. 9,223 legs of this size on one side fit into a balance (64 bits); beyond
# that PostgreSQL refuses the entry: a sum never wraps.
AMOUNT_MINOR_MAX = 10**15
MEMO_MAX = 200
SOURCE_MAX = 100
_KIND = re.compile(r"[a-z][a-z0-9_.]{0,63}")


@dataclass(frozen=True, slots=True)
class Leg:
    """One side of an entry: a debit is positive, a credit negative, in minor units."""

    account: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What happened to one source. `at` is when; `memo` is for whoever reads it later.

    Raises `InvariantBroken` when it is not whole, `UnknownCurrency` for a currency without digits.
    """

    kind: str
    source_id: str
    currency: str
    legs: tuple[Leg, ...]
    at: datetime
    memo: str = ""

    def __post_init__(self) -> None:
        what = f"{self.kind} of {self.source_id}"
        ensure(_KIND.fullmatch(self.kind), f"{self.kind!r} is a kind of entry")
        ensure(0 < len(self.source_id) <= SOURCE_MAX, f"{what}: the source has a name")
        ensure(len(self.memo) <= MEMO_MAX, f"{what}: the memo has at most {MEMO_MAX} characters")
        ensure(self.at.tzinfo is not None, f"{what}: its instant is aware")
        minor_digits(self.currency)
        ensure(2 <= len(self.legs) <= LEGS_MAX, f"{what}: between 2 and {LEGS_MAX} legs")
        for leg in self.legs:
            account_of(leg.account)
            ensure(len(leg.account) <= ACCOUNT_NAME_MAX, f"{leg.account!r} is short enough")
            ensure(
                type(leg.amount_minor) is int and 0 < abs(leg.amount_minor) <= AMOUNT_MINOR_MAX,
                f"{what}: {leg.account} moves by a whole amount within bounds,"
                f" not by {leg.amount_minor!r}",
            )
        off = sum(leg.amount_minor for leg in self.legs)
        ensure(off == 0, f"{what}: debits and credits are equal, not {off} apart")

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) of what moves: the currency and the legs, in whatever order.

        Not of when and why: whoever posts again reads the clock again, and means the same.
        `audit` computes the same in SQL.
        """
        return content_hash(self.currency, self.legs)


def content_hash(currency: str, legs: tuple[Leg, ...]) -> str:
    """SHA-256 (hex) over `currency`, then `account amount` of each leg, sorted, a line each."""
    moved = sorted((leg.account, leg.amount_minor) for leg in legs)
    text = "".join([f"{currency}\n", *(f"{account} {amount}\n" for account, amount in moved)])
    return hashlib.sha256(text.encode()).hexdigest()


def legs(*moved: tuple[str, int]) -> tuple[Leg, ...]:
    """Legs of (account, amount) pairs, in order; what moves nothing has none."""
    return tuple(Leg(account, amount) for account, amount in moved if amount)


def reversed_legs(posted: tuple[Leg, ...]) -> tuple[Leg, ...]:
    """The exact opposite."""
    return tuple(Leg(leg.account, -leg.amount_minor) for leg in posted)
