"""Each way in which one thing of each kind can differ is planted at the sandbox, and is what is
told; before and after, nothing is."""

from collections.abc import Callable
from typing import Any

import pytest

from billing.payments import tasks
from billing.payments.models import PaymentRun, PaymentStep, Refund
from billing.payments.top_ups import buy_credit, checkout_url, settle_top_up
from tenants.scoping import tenant_scope
from tests.billing.payments.reconcile.rig import differing
from tests.billing.payments.reconcile.rig import sandbox as sandbox
from tests.billing.payments.rig import customer_of
from tests.billing.payments.test_credit_notes import credited, paid
from tests.billing.payments.test_refunds import asked

pytestmark = pytest.mark.django_db(transaction=True)

# Of which object; what is done to it; what of it is found, kind and problem; in which words. What
# is planted together is a paragraph: each of it is found, and nothing else. `!` is a deed of its
# own, below. What can be undone is, before the next paragraph.
PLANTED = """
invoice |total 302           |invoice different        |amount ours 3.01 USD, theirs 3.02 USD
paid_by |currency eur        |payment different        |currency ours USD, theirs EUR
top_up  |amount_received 2501|top_up different         |amount ours 25.00 USD, theirs 25.01 USD
refund  |amount 51           |refund different         |amount ours 0.50 USD, theirs 0.51 USD
note    |total 101           |credit_note different    |amount ours 1.00 USD, theirs 1.01 USD
customer|!balance            |customer different       |of no invoice ours 0.00 USD, theirs 2.00 USD

invoice |currency eur        |invoice different        |currency ours USD, theirs EUR
paid_by |twice               |payment different        |amount ours 3.01 USD, theirs 6.02 USD
top_up  |currency eur        |top_up different         |currency ours USD, theirs EUR
refund  |currency eur        |refund different         |currency ours USD, theirs EUR
note    |currency eur        |credit_note different    |currency ours USD, theirs EUR
customer|twice               |customer missing_here    |is a second one of customer acme

invoice |status void         |invoice different        |status ours paid, theirs void
        |                    |payment missing_there    |which is not there
top_up  |status processing   |top_up missing_there     |by our books, which is not there
refund  |status pending      |refund different         |status ours succeeded, theirs pending
note    |status void         |credit_note different    |status ours issued, theirs void
customer|balance -200        |customer different       |of no invoice ours 0.00 USD, theirs 2.00 USD

invoice |twice               |invoice missing_here     |is a second one of invoice ACME-000001
paid_by |status open         |payment different        |status ours paid, theirs open
top_up  |twice               |top_up missing_here      |is a second one of top-up of acme
refund  |twice               |refund missing_here      |is a second one of refund of invoice ACME-0
note    |twice               |credit_note missing_here |is a second one of credit note ACME-CN-0

customer|!invoice            |invoice missing_here     |was not made by us
paid_by |amount_paid 300     |payment different        |amount ours 3.01 USD, theirs 3.00 USD
customer|!payment            |top_up missing_here      |5.00 USD, paid there, is of a customer of
top_up  |!refund             |refund missing_here      |1.00 USD, succeeded there, is of a custom

invoice |!note               |credit_note missing_here |was not made by us
paid_by |gone                |payment different        |amount ours 3.01 USD, theirs 0.00 USD
        |                    |top_up missing_here      |3.01 USD, paid there, is of a customer of
note    |gone                |credit_note missing_there|by our books, which is not there
refund  |gone                |refund missing_there     |of invoice ACME-000001, 0.50 USD, is re_
top_up  |gone                |top_up missing_there     |top-up of acme, 25.00 USD, is cs_

invoice |gone                |invoice missing_there    |ACME-000001, 3.01 USD, is in_
        |                    |payment missing_there    |which is not there
customer|gone                |customer missing_there   |customer acme, 0.00 USD, is cus_
"""


Undo = Callable[[], object]


class World:
    """One tenant with one of each, by the names of the table."""

    def __init__(self, tenant, billed, stripe, there) -> None:
        self.stripe, self.there, self.v1 = stripe, there, there.client.v1
        invoice = paid(tenant, billed, stripe)
        credited(tenant, invoice, 100, "refund")
        asked(tenant, invoice, 50)
        tasks.sweep()
        top_up = buy_credit(tenant.id, "25", stripe, idempotency_key="k", by="owner")
        there.press(checkout_url(top_up, stripe))
        assert settle_top_up(tenant.id, top_up.id, stripe).state == "paid"
        with tenant_scope(tenant.id):
            their_id = str(PaymentRun.objects.get().provider_invoice_id)
            note = PaymentStep.objects.get(kind=PaymentStep.Kind.CREDIT_NOTE).result_id
            refund = str(Refund.objects.get(origin="operator").provider_refund_id)
        [link] = self.v1.invoice_payments.list({"invoice": their_id}).data
        self.customer = customer_of(tenant.id)
        intents = self.v1.payment_intents.list({"customer": self.customer}).data
        [ahead] = [each.id for each in intents if each.amount == 2500]
        self.ids = {
            "invoice": their_id, "paid_by": link.id, "refund": refund, "note": note,
            "top_up": ahead, "customer": self.customer,
        }  # fmt: skip

    def control(self, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        return self.there.sandbox.control(f"/objects/{path}", body, method)

    def plant(self, what: str, deed: str) -> Undo | None:
        """Do it; how it is undone, if it can be."""
        object_id = self.ids[what]
        if deed.startswith("!"):
            made: Undo | None = getattr(self, deed[1:])()
            return made
        if deed == "gone":
            self.control(object_id, method="DELETE")
            return None
        if deed == "twice":
            copy = self.control(f"{object_id}/double")["id"]
            return lambda: self.control(copy, method="DELETE")
        member, value = deed.split()
        asked = int(value) if value.lstrip("-").isdigit() else value
        before = self.control(object_id, {member: asked})
        return lambda: self.control(object_id, before)

    def invoice(self) -> Undo:
        made = self.v1.invoices.create({"customer": self.customer, "currency": "usd"})
        return lambda: self.v1.invoices.delete(made.id)

    def payment(self) -> Undo:
        card = self.v1.payment_methods.list({"customer": self.customer}).data[0].id
        made = self.v1.payment_intents.create(
            {
                "amount": 500, "currency": "usd", "customer": self.customer, "payment_method": card,
                "confirm": True, "off_session": True, "allowed_payment_method_types": ["card"],
            }
        )  # fmt: skip
        return lambda: self.control(made.id, method="DELETE")

    def refund(self) -> Undo:
        made = self.v1.refunds.create({"payment_intent": self.ids["top_up"], "amount": 100})
        return lambda: self.control(made.id, method="DELETE")

    def balance(self) -> Undo:
        def put(amount: int) -> object:
            rows = self.v1.customers.balance_transactions
            return rows.create(self.customer, {"amount": amount, "currency": "usd"})

        put(-200)
        return lambda: put(200)

    def note(self) -> None:
        self.v1.credit_notes.create(
            {"invoice": self.ids["invoice"], "amount": 10, "out_of_band_amount": 10}
        )


def test_what_is_planted_is_what_is_found(organisation, billed, stripe, there):
    world = World(organisation, billed, stripe, there)
    assert differing(stripe) == []
    known: list[tuple[str, str, str]] = []
    for paragraph in PLANTED.strip("\n").split("\n\n"):
        undone, wanted = list[Undo | None](), list[tuple[str, str, str]]()
        for line in paragraph.splitlines():
            what, deed, found, words = (cell.strip() for cell in line.split("|"))
            kind, problem = found.split()
            wanted.append((kind, problem, words))
            if what:
                undone.append(world.plant(what, deed))
        told = [each for each in differing(stripe) if each not in known]
        assert sorted(each[:2] for each in told) == sorted(each[:2] for each in wanted), told
        for kind, problem, words in wanted:
            assert any(each[:2] == (kind, problem) and words in each[2] for each in told), words
        for undo in reversed(undone):
            if undo is not None:
                undo()
        if None in undone:
            known = differing(stripe)
