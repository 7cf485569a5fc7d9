"""Random walks of one customer: whatever is done in whatever order, the ledger balances at each
step, and what the customer owes and owns is what an oracle of plain integers says.
"""

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from billing.credits.models import CreditGrant
from billing.credits.refund import refund_credit
from billing.invoicing.advance import News, advance
from billing.invoicing.credit import LineAsked, create_credit_note, lines_left
from billing.invoicing.models import Invoice, InvoiceLine
from billing.invoicing.queries import upcoming_invoice
from billing.invoicing.taxation import assign_rates, create_rate
from billing.ledger.audit import audit
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.scoping import tenant_scope
from tests.billing.credits.rig import booked, check_conservation
from tests.billing.invoicing.owes_and_owns import NEVER, Bill, Customer, Grant
from tests.scenarios.months.story import Story

PRICES = """
    input_tokens   all  0
    output_tokens  all  0
    requests       all  volume 1000 at 0.01, 2000 at 0.005, on at 0.001
"""
BEGAN = datetime(2023, 3, 1, tzinfo=UTC)
STEP = timedelta(hours=5)


def month_after(at: datetime) -> datetime:
    return (at.replace(day=1) + timedelta(days=32)).replace(day=1, hour=0)


class Walk:
    """The product and the oracle, side by side."""

    def __init__(self, tenant, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now = BEGAN
        with clock.frozen(BEGAN):
            self.acme = Story.begun(tenant, PRICES, "USD")
            rate = create_rate(name="VAT", percentage="19", mode="exclusive")
            with tenant_scope(tenant.id):
                assign_rates([rate.id])
        self.open_month = BEGAN
        self.oracle = Customer()
        self.ids: dict[Bill, UUID] = {}
        self.grant_ids: dict[Grant, UUID] = {}
        self.done: list[str] = []

    def step(self) -> None:
        acts = [
            self.use, self.use_late, self.use_late, self.close, self.close, self.grant, self.expire,
            self.refund, self.note, self.note, self.pay, self.end,
        ]  # fmt: skip
        self.now += STEP
        while self.now >= month_after(self.open_month):
            self.close()
        act = self.chance.choice(acts)
        with clock.frozen(self.now):
            act()
        self.check()

    # -- acts

    def use(self) -> None:
        self._use(self.open_month, self.now)

    def use_late(self) -> None:
        months = [month for month in self.oracle.used if month < self.open_month]
        if months:
            month = self.chance.choice(months)
            self._use(month, month + timedelta(days=3))

    def _use(self, month: datetime, at: datetime) -> None:
        requests = self.chance.choice([1, 100, 350, 700, 900])
        self.oracle.used[month] += requests
        self.acme.uses(f"{at:%Y-%m-%d %H:%M}", requests=requests)
        self.done.append(f"use {requests} of {month:%m}")

    def close(self) -> None:
        until = month_after(self.open_month)
        with clock.frozen(until - timedelta(milliseconds=1)), tenant_scope(self.acme.tenant.id):
            upcoming = upcoming_invoice(until)
        invoice = self.acme.closes(f"{until:%Y-%m-%d}")
        bill = self.oracle.closes(until)
        self.open_month, self.now = until, max(self.now, until)
        assert (invoice is None) == (bill is None)
        self.done.append(f"close {until:%m}")
        if invoice is not None and bill is not None:
            self.ids[bill] = invoice.id
            drawn = self.oracle.still_drawn(bill)
            assert upcoming is not None
            told = (upcoming.total_minor, upcoming.tax_exclusive_minor, upcoming.credit_minor)
            assert told == (bill.total, bill.tax, bill.back - drawn), self.done
            assert (invoice.total_minor, invoice.tax_exclusive_minor) == told[:2], self.done
            self.done[-1] += f": {bill.total}, back {bill.back}, drawn {drawn}"

    def grant(self) -> None:
        bought = self.chance.random() < 0.5
        days = self.chance.choice([None, 20, 45, 90])
        until = None if days is None else self.now + timedelta(days=days)
        amount, name = self.chance.choice([50, 300, 700, 2000]), f"grant {len(self.done)}"
        kind = "purchased" if bought else "promotional"
        ends = "" if until is None else f"{until:%Y-%m-%d %H:%M}"
        self.acme.gets_credit(name, self.acme.text(amount), kind, ends)
        grant = Grant(name, bought, amount, self.now, until or NEVER)
        self.oracle.gets(grant)
        with tenant_scope(self.acme.tenant.id):
            self.grant_ids[grant] = CreditGrant.objects.get(reason=name).id
        self.done.append(f"{kind} {amount} until {ends}")

    def expire(self) -> None:
        self.acme.loses_expired_credit(f"{self.now:%Y-%m-%d %H:%M}")
        self.oracle.loses(self.now, month_after(self.open_month))
        self.done.append("expire")

    def refund(self) -> None:
        bought = [
            each
            for each in self.oracle.grants
            if each.bought and each.left and each.until > self.now and not each.refunded
        ]
        if bought:
            grant = self.chance.choice(bought)
            amount = refund_credit(tenant_id=self.acme.tenant.id, grant_id=self.grant_ids[grant])
            assert amount == grant.left
            self.oracle.refunds(grant)
            self.done.append(f"refund {amount} of {grant.name}")

    def note(self) -> None:
        """Of an invoice, some of a line and of the credit that paid it; or all that is left."""
        bill = self._one_of("open", "paid")
        if bill is None:
            return
        asked, credit = None, self.oracle.still_drawn(bill)
        if self.chance.random() < 0.7:
            asked, credit = self._some(self.ids[bill])
        is_kept = bill.status == "paid" and self.chance.random() < 0.3
        try:
            with tenant_scope(self.acme.tenant.id):
                made = create_credit_note(
                    self.ids[bill],
                    reason="goodwill",
                    idempotency_key=f"{len(self.done)}",
                    lines=asked,
                    effect="balance" if is_kept else "",
                )
        except CallerError as refused:
            if refused.code not in ("nothing_to_credit", "credit_exceeds_invoice"):
                raise
            self.done.append(f"no note: {refused.code}")
            return
        self.oracle.noted(bill, credit, made.tax_exclusive_minor, made.total_minor)
        if made.effect == "balance" and made.total_minor:
            kept = Grant(made.number, True, made.total_minor, self.now, NEVER, made.total_minor)
            self.oracle.to_refund -= made.total_minor
            self.oracle.grants.append(kept)
            with tenant_scope(self.acme.tenant.id):
                row = CreditGrant.objects.get(reason=f"Credit note {made.number}")
            self.grant_ids[kept] = row.id
        self.done.append(f"note {made.total_minor} tax {made.tax_exclusive_minor} credit {credit}")

    def _some(self, invoice_id: UUID) -> tuple[list[LineAsked], int]:
        with tenant_scope(self.acme.tenant.id):
            left = lines_left(invoice_id)
            rows = InvoiceLine.objects.filter(id__in=left).order_by("position")
            usage = [row for row in rows if row.kind != "credit" and left[row.id].left_minor > 0]
            credit = [row for row in rows if row.kind == "credit" and left[row.id].left_minor < 0]
        asked, given, wanted = [], 0, 0
        for row in usage[:1]:
            wanted = self.chance.randint(1, left[row.id].left_minor)
            asked.append(LineAsked(row.id, wanted))
        for row in credit:
            part = min(wanted - given, -left[row.id].left_minor)
            part = part if self.chance.random() < 0.7 else part // 2
            if part:
                asked.append(LineAsked(row.id, -part))
                given += part
        return asked, given

    def pay(self) -> None:
        bill = self._one_of("open", "uncollectible")
        if bill is not None:
            over = self.chance.choice([None, 0, 0, 17])
            paid = None if over is None else max(0, bill.due) + over
            self._move(bill, "paid", paid)

    def end(self) -> None:
        bill = self._one_of("open", "uncollectible")
        if bill is not None:
            ends = ["void", "uncollectible"] if bill.status == "open" else ["void"]
            self._move(bill, self.chance.choice(ends), None)

    def _move(self, bill: Bill, status: str, paid: int | None) -> None:
        with tenant_scope(self.acme.tenant.id):
            assert advance(self.ids[bill], News(status, self.now, paid_minor=paid))
        self.oracle.moves(bill, status, paid)
        self.done.append(f"{status} {bill.total}, paid {paid}")

    def _one_of(self, *statuses: str) -> Bill | None:
        found = [each for each in self.oracle.bills if each.status in statuses]
        return self.chance.choice(found) if found else None

    # -- what must hold

    def check(self) -> None:
        told = "\n".join(self.done)
        books = booked(self.acme.tenant)
        assert sum(books.values()) == 0, told
        assert books == self.oracle.books(), told
        with tenant_scope(self.acme.tenant.id):
            totals = dict(Invoice.objects.values_list("id", "total_minor"))
        assert totals == {self.ids[each]: each.total for each in self.oracle.bills}, told

    def prove(self) -> None:
        check_conservation(self.acme.tenant)
        told = "\n".join(self.done)
        assert [(each.check, each.findings) for each in audit() if each.findings] == [], told


def walked(onboard, seed: int, steps: int) -> None:
    print("seed", seed, "steps", steps)
    with clock.frozen(BEGAN):
        walk = Walk(onboard("acme"), seed)
    for _ in range(steps):
        walk.step()
    walk.prove()


@pytest.mark.django_db
def test_a_walk_over_every_act_balances_at_each_step(onboard):
    walked(onboard, random.randrange(10**9), steps=15)


@pytest.mark.long
@pytest.mark.django_db
@pytest.mark.timeout(600)
@pytest.mark.parametrize("run", range(200))
def test_a_long_walk(onboard, run):
    walked(onboard, random.randrange(10**9), steps=40)
