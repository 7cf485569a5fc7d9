"""Random lives of payments through the real sandbox: the ledger is balanced and right at each step.

Two invoices, one of which may be paid in part by the balance that the provider keeps, and credit
that is bought. What is held after every act: debits and credits are equal and every entry is the
one its source calls for (`audit`); the money in `payments` is, to the cent, what the sandbox holds
of the tenant's charges and balance, less what disputes took; `disputed` is what they hold; and of
every grant each cent is accounted for. Once everything is swept and decided, ours and theirs agree
on status, notes and refunds, and `disputed` is empty.
"""

import random
from contextlib import suppress
from typing import Any

import pytest

from billing.invoicing.credit import LineAsked, create_credit_note, lines_left
from billing.invoicing.models import Invoice
from billing.ledger.audit import audit
from billing.payments import refunds, tasks, withdraw
from billing.payments.accounts import attach_test_card
from billing.payments.collect import collect
from billing.payments.models import Dispute, PaymentRun
from billing.payments.process import refresh
from billing.payments.refunds import mirror_refunds
from billing.payments.top_ups import buy_credit, checkout_url, settle_top_up
from meterplane.kernel.errors import CallerError
from tenants.scoping import tenant_scope
from tests.billing.credits.rig import booked, check_conservation
from tests.billing.payments.disputing import Bank, held_by
from tests.billing.payments.rig import customer_of
from tests.seeds import drawn_seed

pytestmark = pytest.mark.django_db(transaction=True)

# What a bank may say next, by the sandbox.
MOVES = {
    "warning_needs_response": ("warning_under_review", "warning_closed", "needs_response"),
    "warning_under_review": ("warning_closed", "needs_response"),
    "needs_response": ("under_review", "won", "lost"),
    "under_review": ("won", "lost"),
    "lost": ("won",),
}
_OPEN = [status for status in MOVES if status != "lost"]


class Walk:
    """One tenant with invoices, and everything that may happen to them."""

    def __init__(self, chance: random.Random, tenant, billed, stripe, there) -> None:
        self.chance, self.tenant, self.stripe, self.there = chance, tenant, stripe, there
        self.invoices = [billed(tenant) for _ in range(2)]
        self.steps, self.bank = 0, Bank(there, stripe)
        collect(tenant.id, self.invoices[0].id, stripe)
        if chance.random() < 0.5:
            self.there.client.v1.customers.balance_transactions.create(
                customer_of(tenant.id), {"amount": -chance.randint(1, 200), "currency": "usd"}
            )
        collect(tenant.id, self.invoices[1].id, stripe)
        self.acts = [
            self.note, self.note, self.refund, self.refund_there, self.void, self.write_off,
            self.pay_there, self.pay_there, self.card, self.sweep, self.sweep, self.look,
            self.buy, self.dispute, self.dispute, self.decide, self.decide, self.reinstate,
        ]  # fmt: skip

    def step(self) -> str:
        act, invoice = self.chance.choice(self.acts), self.chance.choice(self.invoices)
        self.steps += 1
        with suppress(CallerError):  # what is not possible now is refused, and changes nothing
            act(invoice)
        return act.__name__

    def note(self, invoice: Invoice) -> None:
        with tenant_scope(self.tenant.id):
            now = Invoice.objects.get(id=invoice.id)
            left = [(line, each.left_minor) for line, each in lines_left(invoice.id).items()]
            line, most = max(left, key=lambda each: each[1])
            create_credit_note(
                invoice.id,
                reason="other",
                effect=self.chance.choice(["refund", "balance"]) if now.status == "paid" else "",
                idempotency_key=str(self.steps),
                lines=[LineAsked(line, self.chance.randint(1, max(1, most)))],
            )

    def refund(self, invoice: Invoice) -> None:
        with tenant_scope(self.tenant.id):
            refunds.ask(
                invoice.id,
                amount_minor=self.chance.choice([None, self.chance.randint(1, 301)]),
                reason="why not",
                idempotency_key=str(self.steps),
            )

    def refund_there(self, invoice: Invoice) -> None:
        charge = self.stripe.charge_of(self.their_id(invoice))
        if charge is not None and charge.refundable_minor:
            amount = self.chance.randint(1, charge.refundable_minor)
            self.there.client.v1.refunds.create({"charge": charge.charge_id, "amount": amount})
            mirror_refunds(self.tenant.id, invoice.id, self.stripe)

    def void(self, invoice: Invoice) -> None:
        with tenant_scope(self.tenant.id):
            withdraw.ask(invoice.id, "void", "why not")

    def write_off(self, invoice: Invoice) -> None:
        with tenant_scope(self.tenant.id):
            withdraw.ask(invoice.id, "uncollectible", "why not")

    def pay_there(self, invoice: Invoice) -> None:
        """The customer pays; we may hear of it before our notes are there."""
        their_id = self.their_id(invoice)
        if self.stripe.invoice(their_id).status in ("open", "uncollectible"):
            self.there.client.v1.invoices.pay(their_id, {"payment_method": self.card(invoice)})
            self.look(invoice)

    def card(self, _invoice: Invoice) -> str:
        return attach_test_card(self.tenant.id, self.stripe)

    def sweep(self, _invoice: Invoice) -> None:
        tasks.sweep()

    def look(self, invoice: Invoice) -> None:
        refresh(self.tenant.id, invoice.id, self.their_id(invoice), self.stripe)

    def buy(self, _invoice: Invoice) -> None:
        top_up = buy_credit(
            self.tenant.id, "5", self.stripe, idempotency_key=str(self.steps), by="a walk"
        )
        self.there.press(checkout_url(top_up, self.stripe))
        settle_top_up(self.tenant.id, top_up.id, self.stripe)

    def dispute(self, _invoice: Invoice) -> None:
        charges = self.charges()
        if charges:
            how: dict[str, Any] = {"inquiry": True} if self.chance.random() < 0.2 else {}
            if self.chance.random() < 0.5:
                how["amount"] = self.chance.randint(1, 200)
            if self.chance.random() < 0.2:
                how["moves_money"] = False
            with suppress(AssertionError):  # the sandbox's door: so much is not left
                self.bank.disputes(self.chance.choice(charges).id, **how)

    def decide(self, _invoice: Invoice) -> None:
        """Any of them, by a word that the bank may say of it now."""
        with tenant_scope(self.tenant.id):
            open_ones = list(Dispute.objects.filter(status__in=list(MOVES)).order_by("opened_at"))
        if open_ones:
            one = self.chance.choice(open_ones)
            status = self.chance.choice(MOVES[one.status])
            moves_money = self.chance.random() < 0.8
            self.bank.decides(one.provider_dispute_id, status, moves_money=moves_money)

    def reinstate(self, _invoice: Invoice) -> None:
        """Some of the money comes back, whatever the word is."""
        with tenant_scope(self.tenant.id):
            ones = list(Dispute.objects.order_by("opened_at"))
        if ones:
            one = self.chance.choice(ones).provider_dispute_id
            amount, fee = self.chance.randint(1, 100), -self.chance.choice([0, 9])
            with suppress(AssertionError):  # so much is not held there
                self.bank.moves(one, "reinstate", amount=amount, fee=fee)

    def charges(self) -> list[Any]:
        customer = customer_of(self.tenant.id)
        found = self.there.client.v1.charges.list({"customer": customer, "limit": 100})
        return [each for each in found.data if each.paid]

    def their_id(self, invoice: Invoice) -> str:
        with tenant_scope(self.tenant.id):
            return str(PaymentRun.objects.get(invoice_id=invoice.id).provider_invoice_id)

    def money_there(self) -> int:
        """What the sandbox holds of every charge, less what went back or was taken, and what the
        balance it keeps has paid."""
        held = sum(each.amount_captured - each.amount_refunded for each in self.charges())
        theirs = [self.stripe.invoice(self.their_id(each)) for each in self.invoices]
        balance = sum(
            each.settled_minor - each.amount_paid_minor for each in theirs if each.status == "paid"
        )
        return held + balance - self.bank.gone_minor(self.tenant)

    def check(self, told: object) -> None:
        found = [(each.check, each.findings) for each in audit() if each.findings]
        assert found == [], told
        assert booked(self.tenant).get("payments", 0) == self.money_there(), told
        with tenant_scope(self.tenant.id):
            ids = list(Dispute.objects.values_list("provider_dispute_id", flat=True))
        held = sum(held_by(each) for each in ids)
        assert booked(self.tenant).get("disputed", 0) == held, told
        check_conservation(self.tenant)

    def settled(self) -> None:
        """Everything that was asked for is done, unless a person has to look."""
        with tenant_scope(self.tenant.id):
            left = list(Dispute.objects.all())
        for dispute in left:
            if dispute.status in _OPEN:
                end = "warning_closed" if dispute.status.startswith("warning_") else "lost"
                self.bank.decides(dispute.provider_dispute_id, end)
            elif dispute.status == "won" and self.bank.holds(dispute.provider_dispute_id):
                self.bank.moves(dispute.provider_dispute_id, "reinstate")
        assert "disputed" not in booked(self.tenant)
        for _ in range(3):
            tasks.sweep()
        for invoice in self.invoices:
            self.look(invoice)
            theirs = self.stripe.invoice(self.their_id(invoice))
            with tenant_scope(self.tenant.id):
                ours = Invoice.objects.get(id=invoice.id)
                noted = sum(note.total_minor for note in ours.credit_notes.all())
            if ours.collection_state == "parked":
                continue
            assert (ours.status, noted if ours.status != "void" else 0) == (
                theirs.status,
                theirs.credited_minor if ours.status != "void" else 0,
            )


def walk(seed: int, steps: int, onboard, billed, stripe, there) -> list[str]:
    told = f"seed {seed}"
    one = Walk(random.Random(seed), onboard(f"walk-{seed}"), billed, stripe, there)
    acts: list[str] = []
    for _ in range(steps):
        acts.append(one.step())
        one.check((told, acts))
    one.settled()
    one.check((told, acts, "settled"))
    return acts


def test_the_ledger_is_balanced_at_each_step_of_a_walk(onboard, billed, stripe, there):
    seed = drawn_seed()
    assert len(walk(seed, 8, onboard, billed, stripe, there)) == 8


@pytest.mark.long
def test_the_ledger_is_balanced_at_each_step_of_many_walks(onboard, billed, stripe, there):
    first = drawn_seed()  # and the 19 after it
    taken = [act for n in range(20) for act in walk(first + n, 25, onboard, billed, stripe, there)]
    print({act: taken.count(act) for act in sorted(set(taken))})
    assert len(taken) == 500
