"""Six events of an invoice's life, each twice, late and in any order, end in one state.

Each life is a real one at the sandbox; what Stripe said of the invoice and its money after each
event is kept. An event is never delivered before it happened, so what is read then is at least as
new as it; what a slow worker reads may be as old. Each order begins from the same state, which a
savepoint restores. All 720 orders of a life take about five minutes.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import stripe as sdk
from django.db import transaction

from billing.payments.accounts import attach_test_card
from billing.payments.collect import collect
from billing.payments.correction_port import ProviderCharge, ProviderNote, ProviderRefund
from billing.payments.inbox import take_in
from billing.payments.models import PaymentRun, WebhookEvent
from billing.payments.process import process_event
from billing.payments.provider import ProviderInvoice
from billing.payments.stripe import Stripe
from tenants.scoping import system_scope, tenant_scope
from tests.billing.ledger.rig import held
from tests.billing.payments.rig import Faulty, Killed, read, standing
from tests.billing.payments.test_credit_notes import refunds_of
from tests.seeds import drawn_seed

pytestmark = pytest.mark.django_db(transaction=True)

DECLINING = "pm_card_chargeCustomerFail"
FAST = 2  # of each life, a third of a second each
ORDERS = list(itertools.permutations(range(6)))


@dataclass(frozen=True, slots=True)
class Seen:
    """What the provider says at one point of a life."""

    invoice: ProviderInvoice
    charge: ProviderCharge | None
    notes: list[ProviderNote]
    refunds: list[ProviderRefund]


@dataclass
class Life:
    """An invoice of ours that is finalising, six events, and what stood there after each."""

    tenant: Any
    invoice: Any
    events: list[dict[str, Any]]
    after: list[Seen]


class Told:
    """A provider that is read at a chosen point of the life."""

    name = "stripe"

    def __init__(self, life: Life) -> None:
        self._life, self.at = life, 0

    @property
    def _now(self) -> Seen:
        return self._life.after[self.at]

    def invoice(self, _their_id: str) -> ProviderInvoice:
        return self._now.invoice

    def invoice_of_payment(self, _intent_id: str) -> str:
        return self._now.invoice.provider_invoice_id

    def charge_of(self, _their_id: str) -> ProviderCharge | None:
        return self._now.charge

    def credit_notes(self, _their_id: str) -> list[ProviderNote]:
        return self._now.notes

    def refunds(self, _intent_id: str) -> list[ProviderRefund]:
        return self._now.refunds


class Theirs:
    """What happens to the invoice at the provider, by itself or on its own pages."""

    def __init__(self, tenant: Any, invoice: Any, stripe: Stripe, there: Any, their_id: str):
        self._tenant, self._invoice, self._stripe = tenant, invoice, stripe
        self._invoices, self._refunds = there.client.v1.invoices, there.client.v1.refunds
        self._id = their_id

    def nothing_more(self) -> None:
        """The event is told beside the one before it."""

    def filled(self) -> None:
        lines: Any = [{"amount": self._invoice.total_minor, "description": "Tokens"}]
        self._invoices.add_lines(self._id, {"lines": lines})

    def finalised(self) -> None:
        self._invoices.finalize_invoice(self._id, {"auto_advance": False})

    def filled_and_finalised(self) -> None:
        self.filled()
        self.finalised()

    def declined(self) -> None:
        with pytest.raises(sdk.CardError):
            self._invoices.pay(self._id)

    def written_off(self) -> None:
        self._invoices.mark_uncollectible(self._id)

    def voided(self) -> None:
        self._invoices.void_invoice(self._id)

    def paid(self) -> None:
        attach_test_card(self._tenant.id, self._stripe)
        self._invoices.pay(self._id)

    def refunded(self) -> None:
        charge = self._stripe.charge_of(self._id)
        assert charge is not None
        self._refunds.create({"charge": charge.charge_id, "amount": 100})


Act = Callable[[Theirs], None]
_DECLINED: tuple[tuple[str, Act], ...] = (
    ("invoice.created", Theirs.nothing_more),
    ("invoice.finalized", Theirs.filled_and_finalised),
    ("invoice.payment_failed", Theirs.declined),
)
# Six events of each, what makes them happen, and what the invoice is after each.
LIVES: dict[str, tuple[tuple[tuple[str, Act], ...], str]] = {
    "paid at last": (
        (
            ("invoice.created", Theirs.nothing_more),
            ("invoice.updated", Theirs.filled),
            ("invoice.finalized", Theirs.finalised),
            ("invoice.payment_failed", Theirs.declined),
            ("invoice.marked_uncollectible", Theirs.written_off),
            ("invoice.paid", Theirs.paid),
        ),
        "draft draft open open uncollectible paid",
    ),
    "paid and refunded": (
        (
            *_DECLINED,
            ("invoice.paid", Theirs.paid),
            ("refund.created", Theirs.refunded),
            ("charge.refunded", Theirs.nothing_more),
        ),
        "draft open open paid paid paid",
    ),
    "voided": (
        (
            ("invoice.created", Theirs.nothing_more),
            ("invoice.updated", Theirs.filled),
            ("invoice.finalized", Theirs.finalised),
            ("invoice.payment_failed", Theirs.declined),
            ("invoice.marked_uncollectible", Theirs.written_off),
            ("invoice.voided", Theirs.voided),
        ),
        "draft draft open open uncollectible void",
    ),
}
# Status, whether anybody was paid, what is held of the 301, and the refunds.
ENDS: dict[str, tuple[str, dict[str, int], list[tuple[str, str, int, int, int]]]] = {
    "paid at last": ("paid", {"payments": 301, "receivable": 0}, []),
    "paid and refunded": (
        "paid",
        {"payments": 201, "receivable": 0, "goodwill": 100},
        [("provider", "succeeded", 100, 0, 0)],
    ),
    "voided": ("void", {"payments": 0, "receivable": 0, "bad_debt": 0}, []),
}


@pytest.fixture(params=LIVES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def life(name, organisation, billed, stripe, there) -> Life:
    """Made by our own run, which dies when the draft is there; what follows happens at Stripe."""
    attach_test_card(organisation.id, stripe, DECLINING)
    invoice = billed(organisation)
    runs = Faulty(stripe, 3, after=False, fail=Killed)  # customer is there: draft, then its reading
    with pytest.raises(Killed):
        collect(organisation.id, invoice.id, runs)
    with tenant_scope(organisation.id):
        their_id = str(PaymentRun.objects.get().provider_invoice_id)
    theirs = Theirs(organisation, invoice, stripe, there, their_id)
    acts, statuses = LIVES[name]
    after: list[Seen] = []
    for _, act in acts:
        act(theirs)
        charge = stripe.charge_of(their_id)
        refunds = stripe.refunds(charge.payment_intent_id) if charge is not None else []
        notes = stripe.credit_notes(their_id)
        after.append(Seen(stripe.invoice(their_id), charge, notes, refunds))
    assert [each.invoice.status for each in after] == statuses.split()
    about = {their_id, after[-1].charge.payment_intent_id if after[-1].charge else their_id}
    told = there.client.v1.events.list({"limit": 100}).data
    ours = [each for each in map(_plain, reversed(told)) if about & set(_ids(each))]
    events = [next(each for each in ours if each["type"] == type_) for type_, _ in acts]
    return Life(organisation, invoice, events, after)


def _plain(event: Any) -> dict[str, Any]:
    found: dict[str, Any] = event.to_dict(for_json=True)
    return found


def _ids(event: dict[str, Any]) -> tuple[str, str]:
    """What an event is about: an invoice, or money of a payment."""
    about = event["data"]["object"]
    return str(about.get("id")), str(about.get("payment_intent"))


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
            *(ours.paid_at, ours.payment_attempts, ours.hosted_url, ours.paid_minor),
            *(standing(life.tenant.id), tuple(sorted(held(life.tenant.id).items()))),
            refunds_of(life.tenant),
        )
        transaction.set_rollback(True)
    return end


def assert_one_end(life: Life, name: str, orders: Sequence[Sequence[int]], seed: int) -> None:
    print(f"{name}: {len(orders)} orders")
    wanted = ends(life, range(6), seed)
    status, books, refunds = ENDS[name]
    assert wanted[:3] == (status, "done", "")
    assert wanted[8] == "active"
    found = dict(wanted[9])  # type: ignore[call-overload]
    assert {account: found.get(account, 0) for account in books} == books
    assert wanted[10] == refunds
    for order in orders:
        assert ends(life, order, seed) == wanted, order


def test_orders_of_six_events_end_in_one_state(life, name):
    seed = drawn_seed()
    few = FAST if name == "paid at last" else FAST // 3
    assert_one_end(life, name, random.Random(seed).sample(ORDERS, few), seed)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_all_orders_of_six_events_end_in_one_state(life, name):
    assert_one_end(life, name, ORDERS, drawn_seed())
