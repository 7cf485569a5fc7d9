"""What one customer owes and owns, kept in plain integers: the oracle of the random walks.

Shares no code with the product. One meter is priced, in requests: up to 1,000 of a month 1 cent
each, up to 2,000 half a cent, more a tenth; the whole month at the price its sum falls in. 19 %
come on top of what credit leaves. Everything is cents.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime

NEVER = datetime.max.replace(tzinfo=UTC)


def halves_away(numerator: int, denominator: int) -> int:
    """To the whole number, halves away from zero."""
    size = (2 * abs(numerator) + denominator) // (2 * denominator)
    return size if numerator >= 0 else -size


def price(requests: int) -> int:
    """Cents of so many requests in a month."""
    tenths = 10 if requests <= 1000 else 5 if requests <= 2000 else 1
    return halves_away(requests * tenths, 10)


@dataclass(eq=False)
class Grant:
    """Credit. `until` is outside."""

    name: str
    bought: bool
    amount: int
    since: datetime
    until: datetime
    left: int = 0
    refunded: int = 0


@dataclass(eq=False)
class Bill:
    """One invoice: what it says of each month, what it gave back and drew, and its end."""

    at: datetime
    of_month: dict[datetime, int]
    back: int
    drawn: list[list]  # [grant, amount still drawn], in the order of drawing
    tax: int
    total: int
    status: str = "open"
    returned: dict[datetime, int] = field(default_factory=lambda: defaultdict(int))
    lowered: int = 0  # by notes while it was open, tax included
    noted: int = 0  # by all notes, tax included
    noted_tax: int = 0
    noted_use: int = 0  # what was used, without tax, whoever had paid it
    over: int = 0

    @property
    def due(self) -> int:
        return self.total - self.lowered


class Customer:
    """Every act changes what is owed and owned as the words say."""

    def __init__(self) -> None:
        self.used: dict[datetime, int] = defaultdict(int)
        self.invoiced: dict[datetime, int] = defaultdict(int)
        self.counted: dict[datetime, int] = defaultdict(int)
        self.grants: list[Grant] = []
        self.bills: list[Bill] = []
        self.paid = self.to_refund = self.breakage = self.promotions = 0

    def gets(self, grant: Grant) -> None:
        grant.left = grant.amount
        self.grants.append(grant)
        if grant.bought:
            self.paid += grant.amount
        else:
            self.promotions += grant.amount

    def closes(self, at: datetime) -> Bill | None:
        """Everything used until now, less what was invoiced; None if nothing came."""
        months = {
            month: price(self.used[month]) - self.invoiced[month]
            for month in sorted(self.used)
            if self.used[month] != self.counted[month]
        }
        if not months:
            return None
        back = sum(self._comes_back(month, -delta) for month, delta in months.items() if delta < 0)
        due = sum(months.values()) + back
        drawn = self._draws(at, max(0, due))
        left = due - sum(amount for _, amount in drawn)
        tax = halves_away(19 * left, 100)
        bill = Bill(at, months, back, drawn, tax, left + tax)
        self.bills.append(bill)
        for month, delta in months.items():
            self.invoiced[month] += delta
            self.counted[month] = self.used[month]
        return bill

    def _comes_back(self, month: datetime, wanted: int) -> int:
        """Of what invoices drew for the month, the newest first; of each, what went last."""
        total = 0
        for bill in reversed(self.bills):
            most = min(wanted - total, bill.of_month.get(month, 0) - bill.returned[month])
            came = self._undraw(bill, max(0, most))
            bill.returned[month] += came
            total += came
        return total

    def _undraw(self, bill: Bill, most: int) -> int:
        came = 0
        for part in reversed(bill.drawn):
            amount = min(most - came, part[1])
            part[0].left += amount
            part[1] -= amount
            came += amount
        return came

    def _draws(self, at: datetime, due: int) -> list[list]:
        live = [each for each in self.grants if each.left and each.since < at <= each.until]
        drawn = []
        for grant in sorted(live, key=lambda each: (each.until, each.bought, each.since)):
            amount = min(due, grant.left)
            if amount:
                grant.left -= amount
                due -= amount
                drawn.append([grant, amount])
        return drawn

    def still_drawn(self, bill: Bill) -> int:
        return sum(amount for _, amount in bill.drawn)

    def noted(self, bill: Bill, credit: int, tax: int, total: int) -> None:
        """A credit note gave back so much credit, and `total` with `tax` of money."""
        assert self._undraw(bill, credit) == credit
        bill.noted += total
        bill.noted_tax += tax
        bill.noted_use += total - tax + credit
        assert 0 <= bill.noted_tax <= max(0, bill.tax)
        assert bill.noted <= max(0, bill.total)
        if bill.status == "paid":
            self.to_refund += total
        else:
            bill.lowered += total

    def moves(self, bill: Bill, status: str, paid: int | None) -> None:
        if status == "void":
            self._undraw(bill, self.still_drawn(bill))
        if status == "paid":
            bill.over = max(0, (paid or 0) - max(0, bill.due))
            self.paid += bill.due + bill.over
        bill.status = status

    def loses(self, at: datetime, pays_until: datetime) -> None:
        """What expired, and no month that is still to be closed can draw, is gone."""
        for grant in self.grants:
            if grant.until <= at and grant.until < pays_until:
                if grant.bought:
                    self.breakage += grant.left
                else:
                    self.promotions -= grant.left
                grant.left = 0

    def refunds(self, grant: Grant) -> None:
        self.to_refund += grant.left
        grant.refunded, grant.left = grant.left, 0

    def earned(self) -> int:
        """What was used and is not forgiven. Of a voided invoice only this is left: what it gave
        back of earlier ones is given, and what later ones gave back of it was forgiven already."""
        return sum(
            sum(each.returned.values()) - each.back
            if each.status == "void"
            else sum(each.of_month.values()) - each.noted_use
            for each in self.bills
        )

    def books(self) -> dict[str, int]:
        """Every account; those that hold nothing left out."""
        taxed = [each for each in self.bills if each.status != "void"]
        held = {
            "receivable": sum(each.due for each in self.bills if each.status == "open"),
            "bad_debt": sum(each.due for each in self.bills if each.status == "uncollectible"),
            "payments": self.paid,
            "customer_balance": -sum(each.over for each in self.bills),
            "credits:purchased": -sum(each.left for each in self.grants if each.bought),
            "credits:promotional": -sum(each.left for each in self.grants if not each.bought),
            "tax:VAT": -sum(each.tax - each.noted_tax for each in taxed),
            "revenue:requests": -self.earned(),
            "refunds": -self.to_refund,
            "breakage": -self.breakage,
            "promotions": self.promotions,
        }
        return {account: amount for account, amount in held.items() if amount}
