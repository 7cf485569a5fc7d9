"""Six events of an invoice's life, each twice, late and in any order, end in one state.

The life is a real one at the sandbox; what Stripe said of the invoice after each event is kept. An
event is never delivered before it happened, so what is read then is at least as new as it; what a
slow worker reads may be as old. Each order begins from the same state, which a savepoint restores.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import stripe as sdk
from django.db import transaction

from billing.payments.accounts import attach_test_card
from billing.payments.collect import collect
from billing.payments.inbox import take_in
from billing.payments.models import PaymentRun, WebhookEvent
from billing.payments.process import process_event
from billing.payments.provider import ProviderInvoice
from tenants.scoping import system_scope, tenant_scope
from tests.billing.ledger.rig import held
from tests.billing.payments.rig import Faulty, Killed, read, standing

pytestmark = pytest.mark.django_db(transaction=True)

LIFE = (
    "invoice.created",
    "invoice.updated",
    "invoice.finalized",
    "invoice.payment_failed",
    "invoice.marked_uncollectible",
    "invoice.paid",
)
FAST = 6  # a third of a second each
ORDERS = list(itertools.permutations(range(len(LIFE))))


@dataclass
class Life:
    """An invoice of ours that is finalising, six events, and what stood there after each."""

    tenant: Any
    invoice: Any
    events: list[dict[str, Any]]
    after: list[ProviderInvoice]


class Told:
    """A provider that is read at a chosen point of the life."""

    name = "stripe"

    def __init__(self, life: Life) -> None:
        self._life, self.at = life, 0

    def invoice(self, _their_id: str) -> ProviderInvoice:
        return self._life.after[self.at]


@pytest.fixture
def life(organisation, billed, stripe, there) -> Life:
    """Made by our own run, which dies when the draft is there; what follows happens at Stripe."""
    attach_test_card(organisation.id, stripe, "pm_card_chargeCustomerFail")
    invoice = billed(organisation)
    after: list[ProviderInvoice] = []
    runs = Faulty(stripe, 3, after=False, fail=Killed)  # customer is there: draft, then its reading
    with pytest.raises(Killed):
        collect(organisation.id, invoice.id, runs)
    with tenant_scope(organisation.id):
        their_id = str(PaymentRun.objects.get().provider_invoice_id)
    invoices = there.client.v1.invoices
    lines: Any = [{"amount": invoice.total_minor, "description": "Tokens"}]
    for act in (
        lambda: None,
        lambda: invoices.add_lines(their_id, {"lines": lines}),
        lambda: invoices.finalize_invoice(their_id, {"auto_advance": False}),
        lambda: declined(invoices, their_id),
        lambda: invoices.mark_uncollectible(their_id),
        lambda: (attach_test_card(organisation.id, stripe), invoices.pay(their_id)),
    ):
        act()
        after.append(stripe.invoice(their_id))
    assert [each.status for each in after] == [
        *("draft", "draft", "open", "open", "uncollectible", "paid")
    ]
    told = there.client.v1.events.list({"limit": 100}).data
    about = [each.to_dict(for_json=True) for each in told]
    ours = [each for each in reversed(about) if each["data"]["object"].get("id") == their_id]
    events = [next(each for each in ours if each["type"] == type_) for type_ in LIFE]
    return Life(organisation, invoice, events, after)


def declined(invoices: Any, their_id: str) -> None:
    with pytest.raises(sdk.CardError):
        invoices.pay(their_id)


def deliveries(order: Sequence[int], chance: random.Random) -> Iterator[tuple[int, int]]:
    """(which event, how far the life is when it is read), each event twice."""
    arriving = list(order)
    for again in order:
        arriving.insert(chance.randint(arriving.index(again) + 1, len(arriving)), again)
    happened = 0
    for event in arriving:
        happened = max(happened, event)
        slow = chance.random() < 0.2  # its worker read when the event had just happened
        yield event, event if slow else happened


def ends(life: Life, order: Sequence[int], seed: int) -> tuple[object, ...]:
    """What everything is after one order of deliveries; then all is as it was."""
    provider = Told(life)
    with transaction.atomic():
        for event, provider.at in deliveries(order, random.Random(f"{seed} {order}")):
            told = life.events[event]
            with system_scope("test"):
                is_new = take_in(told["id"], told["type"], told, "delivered")
                if not is_new:  # a second delivery changes nothing; have it read again all the same
                    WebhookEvent.objects.filter(event_id=told["id"]).update(processed_at=None)
            process_event(told["id"], provider)  # type: ignore[arg-type]
        ours = read(life.tenant.id, life.invoice)
        end = (
            *(ours.status, ours.collection_state, ours.collection_note, ours.number),
            *(ours.paid_at, ours.payment_attempts, ours.hosted_url),
            *(standing(life.tenant.id), tuple(sorted(held(life.tenant.id).items()))),
        )
        transaction.set_rollback(True)
    return end


def assert_one_end(life: Life, orders: Sequence[Sequence[int]]) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}, {len(orders)} orders")
    wanted = ends(life, range(len(LIFE)), seed)
    assert wanted[:3] == ("paid", "done", "")
    assert wanted[7] == "active"
    assert dict(wanted[8])["payments"] == life.invoice.total_minor  # type: ignore[call-overload]
    for order in orders:
        assert ends(life, order, seed) == wanted, order


def test_orders_of_six_events_end_in_one_state(life):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed of the sample {seed}")
    assert_one_end(life, random.Random(seed).sample(ORDERS, FAST))


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_all_orders_of_six_events_end_in_one_state(life):
    assert_one_end(life, ORDERS)
