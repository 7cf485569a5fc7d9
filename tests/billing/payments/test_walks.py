"""Random lives of invoices through the real sandbox: the ledger is balanced and right at each step.

What is held after every act: debits and credits are equal and every entry is the one its source
calls for (`audit`); the money in `payments` is, to the cent, what the sandbox holds of the tenant's
charges; and once everything is swept, ours and theirs agree on status, notes and refunds.
"""

import random
from contextlib import suppress

import pytest

from billing.invoicing.credit import LineAsked, create_credit_note, lines_left
from billing.invoicing.models import Invoice
from billing.ledger.audit import audit
from billing.payments import refunds, tasks, withdraw
from billing.payments.accounts import attach_test_card
from billing.payments.collect import collect
from billing.payments.models import PaymentRun
from billing.payments.process import refresh
from billing.payments.refunds import mirror_refunds
from meterplane.kernel.errors import CallerError
from tenants.scoping import tenant_scope
from tests.billing.credits.rig import booked
from tests.seeds import drawn_seed

pytestmark = pytest.mark.django_db(transaction=True)


class Walk:
    """One tenant with invoices, and everything that may happen to them."""

    def __init__(self, chance: random.Random, tenant, billed, stripe, there) -> None:
        self.chance, self.tenant, self.stripe, self.there = chance, tenant, stripe, there
        self.invoices = [billed(tenant) for _ in range(2)]
        self.steps = 0
        for invoice in self.invoices:
            collect(tenant.id, invoice.id, stripe)
        self.acts = [
            self.note, self.note, self.refund, self.refund_there, self.void, self.write_off,
            self.pay_there, self.pay_there, self.card, self.sweep, self.sweep, self.look,
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

    def their_id(self, invoice: Invoice) -> str:
        with tenant_scope(self.tenant.id):
            return str(PaymentRun.objects.get(invoice_id=invoice.id).provider_invoice_id)

    def money_there(self) -> int:
        """What the sandbox holds of every charge, less what went back."""
        charges = [self.stripe.charge_of(self.their_id(each)) for each in self.invoices]
        return sum(charge.refundable_minor for charge in charges if charge is not None)

    def settled(self) -> None:
        """Everything that was asked for is done, unless a person has to look."""
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
        found = [(each.check, each.findings) for each in audit() if each.findings]
        assert found == [], (told, acts)
        assert booked(one.tenant).get("payments", 0) == one.money_there(), (told, acts)
    one.settled()
    found = [(each.check, each.findings) for each in audit() if each.findings]
    assert found == [], (told, acts, "settled")
    assert booked(one.tenant).get("payments", 0) == one.money_there(), (told, acts, "settled")
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
