"""An invoice that is not paid: charged again, told, suspended, given up, and restored when paid."""

from collections.abc import Callable
from datetime import timedelta
from smtplib import SMTPServerDisconnected
from threading import Barrier, Event, Thread
from typing import Any

import pytest
from django.core import mail
from django.db import IntegrityError, ProgrammingError, connections, transaction

from billing.invoicing.advance import News, advance
from billing.invoicing.models import Invoice
from billing.ledger.audit import audit
from billing.payments import dun as dunning
from billing.payments.accounts import attach_test_card
from billing.payments.collect import collect
from billing.payments.dun import LEASE, dun, work_on
from billing.payments.dunning_policy import (
    SHIPPED,
    checked,
    installation_policy,
    policy,
    schedule,
    set_installation_policy,
    set_policy,
)
from billing.payments.judge import judge
from billing.payments.models import DunningCase, DunningStep
from billing.payments.owed import owed
from billing.payments.process import refresh
from billing.payments.provider import CardDeclined, Parameters, ProviderUnavailable, SendKind
from billing.payments.stripe import Stripe
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.policy.models import GatewayPolicy
from tenants.queries import organisation as own
from tenants.scoping import system_scope, tenant_scope
from tenants.standing import set_standing
from tests.billing.payments.rig import Faulty, Killed, read, standing

pytestmark = pytest.mark.django_db(transaction=True)

DECLINING = "pm_card_chargeCustomerFail"
GIVEN_UP = SHIPPED.document | {"end": "mark_uncollectible", "end_day": 30}


@pytest.fixture
def declined(organisation, billed, stripe) -> Invoice:
    """An invoice whose first charge has failed just now."""
    attach_test_card(organisation.id, stripe, DECLINING)
    invoice = billed(organisation)
    collect(organisation.id, invoice.id, stripe)
    return read(organisation.id, invoice)


def swept(days: int, provider: Stripe | Faulty, hours: int = 1) -> list[str]:
    """Subjects of the mails that a sweep sends that long after now."""
    before = len(mail.outbox)
    with clock.frozen(clock.now() + timedelta(days=days, hours=hours)):
        dun(lambda: provider)
    return [sent.subject for sent in mail.outbox[before:]]


def steps(invoice: Invoice) -> list[tuple[str, str]]:
    """(step, state) of what was begun, by the day it was due."""
    with tenant_scope(invoice.tenant_id):
        rows = DunningStep.objects.filter(invoice_id=invoice.id).order_by("due_at", "step")
        return [(row.step, row.state) for row in rows]


def charges(there, tenant) -> int:
    """How often the tenant's invoices were charged in vain. (Stripe's own count does not count
    charges that are asked for.)"""
    ours = [each.id for each in there.invoices(tenant)]
    failed = there.client.v1.events.list({"type": "invoice.payment_failed", "limit": 100})
    return sum(event.data.object["id"] in ours for event in failed.auto_paging_iter())


def test_a_declined_invoice_is_told_charged_again_and_suspended_and_a_payment_restores_at_once(
    organisation, declined, stripe, there
):
    assert standing(organisation.id) == "past_due"
    assert swept(0, stripe) == [f"Invoice {declined.number}: $3.01 is overdue"]
    assert swept(0, stripe) == []
    assert mail.outbox[0].to == ["owner@acme.example"]
    in_3_days = (clock.now() + timedelta(days=3)).date().isoformat()
    for said in ("declined", in_3_days, declined.hosted_url):
        assert said in mail.outbox[0].body
    [theirs] = there.invoices(organisation)
    assert charges(there, organisation) == 1
    assert len(swept(3, stripe)) == 1
    assert charges(there, organisation) == 2
    for day in (5, 7):
        swept(day, stripe)
    assert swept(13, stripe) == []
    assert standing(organisation.id) == "past_due"
    assert len(swept(14, stripe)) == 1
    assert "The service is suspended" in mail.outbox[-1].body
    assert standing(organisation.id) == "suspended"
    with system_scope("test"):
        compiled = GatewayPolicy.objects.get(tenant_id=organisation.id).document
    assert (compiled["status"], declined.number in compiled["status_reason"]) == ("suspended", True)
    assert swept(300, stripe) == []
    assert steps(declined) == [
        (step, "done")
        for step in [
            "mail:0",
            "charge:3",
            "mail:3",
            "charge:5",
            "charge:7",
            "mail:7",
            "mail:14",
            "suspend:14",
        ]
    ]
    attach_test_card(organisation.id, stripe)
    there.client.v1.invoices.pay(theirs.id)  # as the customer does on the hosted page
    collect(organisation.id, declined.id, stripe)
    assert (standing(organisation.id), read(organisation.id, declined).status) == ("active", "paid")
    with system_scope("test"):
        assert GatewayPolicy.objects.get(tenant_id=organisation.id).document["status"] == "active"
    with tenant_scope(organisation.id):
        assert owed() == []
    assert all(verdict.holds for verdict in audit())


def test_a_charge_that_succeeds_ends_the_case(organisation, declined, stripe):
    swept(0, stripe)
    attach_test_card(organisation.id, stripe)
    assert swept(3, stripe) == []
    assert read(organisation.id, declined).status == "paid"
    assert standing(organisation.id) == "active"
    assert swept(20, stripe) == []


def at_once(*acts: Callable[[], object]) -> None:
    """Run them in threads that start together; a thread that raises fails the test."""
    barrier, failures = Barrier(len(acts)), list[BaseException]()

    def run(act: Callable[[], object]) -> None:
        try:
            barrier.wait(10)
            act()
        except BaseException as failure:
            failures.append(failure)
        finally:
            connections.close_all()

    threads = [Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []


def test_sweeps_that_run_at_once_take_each_step_once(organisation, declined, stripe, there):
    swept(0, stripe)
    with clock.frozen(clock.now() + timedelta(days=3, hours=1)):
        at_once(*[lambda: dun(lambda: stripe)] * 4)
        dun(lambda: stripe)
    assert steps(declined) == [("mail:0", "done"), ("charge:3", "done"), ("mail:3", "done")]
    assert (charges(there, organisation), len(mail.outbox)) == (2, 2)


def test_a_payment_that_commits_while_a_suspension_waits_is_not_followed_by_it(
    organisation, declined, stripe
):
    for day in (0, 3, 7):
        swept(day, stripe)
    holds, waits = Event(), Event()

    def pay() -> None:
        with tenant_scope(organisation.id):
            advance(declined.id, News("paid", clock.now(), paid_minor=301))
            holds.set()
            assert waits.wait(10)
            judge(organisation.id)

    def suspend() -> None:
        assert holds.wait(10)  # the case is open as far as anybody can see
        waits.set()
        work_on(organisation.id, declined.id, lambda: stripe)

    with clock.frozen(clock.now() + timedelta(days=14, hours=1)):
        at_once(pay, suspend)
    assert standing(organisation.id) == "active"
    assert "suspend:14" not in dict(steps(declined))


def suspended(stripe: Stripe) -> None:
    """Every step up to the suspension."""
    for day in (0, 3, 7, 14):
        swept(day, stripe)


def test_what_a_person_decided_since_is_not_undone_by_a_payment(organisation, declined, stripe):
    suspended(stripe)
    set_standing(tenant_id=organisation.id, standing="suspended", reason="abuse")
    attach_test_card(organisation.id, stripe)
    collect(organisation.id, declined.id, stripe, retry=True)
    assert read(organisation.id, declined).status == "paid"
    assert standing(organisation.id) == "suspended"


def test_a_suspension_stays_while_another_invoice_is_past_its_grace(
    organisation, declined, billed, stripe
):
    other = billed(organisation)
    collect(organisation.id, other.id, stripe)
    suspended(stripe)
    attach_test_card(organisation.id, stripe)
    collect(organisation.id, declined.id, stripe, retry=True)
    assert standing(organisation.id) == "suspended"
    collect(organisation.id, other.id, stripe, retry=True)
    assert standing(organisation.id) == "active"


def test_one_that_a_person_resumed_is_not_suspended_again_for_the_same_invoice(
    organisation, declined, stripe
):
    suspended(stripe)
    set_standing(tenant_id=organisation.id, standing="active", reason="")
    swept(20, stripe)
    collect(organisation.id, declined.id, stripe)
    assert standing(organisation.id) == "past_due"


def test_after_weeks_without_a_sweep_nobody_gets_all_mails_or_is_suspended_untold(
    organisation, declined, stripe, there
):
    assert len(swept(20, stripe)) == 1
    assert steps(declined) == [("charge:7", "done"), ("mail:14", "done")]
    assert standing(organisation.id) == "past_due"
    swept(20, stripe, hours=20)
    assert standing(organisation.id) == "past_due"
    swept(21, stripe, hours=2)
    assert standing(organisation.id) == "suspended"


class DiesAtTheCharge:
    """A provider whose caller is gone before, or after, the bank has refused."""

    def __init__(self, inner: Stripe, *, after: bool) -> None:
        self._inner, self._after = inner, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def send(self, kind: SendKind, target_id: str, parameters: Parameters, key: str) -> str:
        if kind != "pay":
            return self._inner.send(kind, target_id, parameters, key)
        if self._after:
            with pytest.raises(CardDeclined):
                self._inner.send(kind, target_id, parameters, key)
        raise Killed


@pytest.mark.parametrize("after", [False, True])
def test_a_worker_that_dies_at_the_charge_is_followed_by_one_that_looks_first(
    organisation, declined, stripe, there, after
):
    swept(0, stripe)
    waits = Faulty(stripe, 0, after=after, fail=Killed)
    with clock.frozen(clock.now() + timedelta(days=3, hours=1)):
        with pytest.raises(Killed):
            dun(lambda: DiesAtTheCharge(stripe, after=after))
        dun(lambda: waits)
        assert waits.calls == []  # it is the first one's for as long as it may live
        assert charges(there, organisation) == (2 if after else 1)
    with clock.frozen(clock.now() + timedelta(days=3, hours=1) + LEASE):
        dun(lambda: stripe)
    assert charges(there, organisation) == 2
    assert steps(declined)[1:] == [("charge:3", "done"), ("mail:3", "done")]


def test_a_provider_or_a_mail_server_that_is_away_delays_a_step(
    organisation, declined, stripe, monkeypatch
):
    def away(_step: DunningStep) -> None:
        raise SMTPServerDisconnected("no")

    with monkeypatch.context() as patched:
        patched.setattr(dunning, "send", away)
        assert swept(0, stripe) == []
    assert steps(declined) == [("mail:0", "begun")]
    assert len(swept(0, stripe)) == 1
    gone = Faulty(stripe, 1, after=False, fail=lambda: ProviderUnavailable("away", "away"))
    swept(3, gone)
    assert steps(declined)[-1] == ("charge:3", "begun")
    swept(3, stripe, hours=9)
    assert steps(declined)[1:] == [("charge:3", "done"), ("mail:3", "done")]


def test_what_is_given_up_is_uncollectible_on_both_sides_and_may_still_be_paid(
    organisation, declined, stripe, there
):
    with tenant_scope(organisation.id):
        set_policy(GIVEN_UP, by="test")
    suspended(stripe)
    swept(30, stripe)
    [theirs] = there.invoices(organisation)
    assert (theirs.status, read(organisation.id, declined).status) == ("uncollectible",) * 2
    assert standing(organisation.id) == "suspended"
    attach_test_card(organisation.id, stripe)
    there.client.v1.invoices.pay(theirs.id)
    refresh(organisation.id, declined.id, theirs.id, stripe)
    assert (read(organisation.id, declined).status, standing(organisation.id)) == ("paid", "active")
    assert all(verdict.holds for verdict in audit())


def test_an_invoice_without_a_card_is_overdue_on_its_day(organisation, billed, stripe):
    invoice = billed(organisation)
    collect(organisation.id, invoice.id, stripe)
    assert swept(13, stripe) == []
    assert len(swept(14, stripe)) == 1
    with tenant_scope(organisation.id):
        assert own().standing_reason.endswith("is overdue")


def test_a_policy_is_the_organisations_or_the_installations_or_the_shipped_one(organisation):
    assert installation_policy() == (SHIPPED, "shipped")
    with system_scope("test"):
        set_installation_policy(GIVEN_UP, by="test")
    with tenant_scope(organisation.id):
        assert policy() == (checked(GIVEN_UP), "installation")
        set_policy(SHIPPED.document, by="test")
        assert policy() == (SHIPPED, "organisation")
    plan = schedule(checked(GIVEN_UP), clock.now(), charges=False)
    assert [step.name for step in plan] == [
        "mail:0",
        "mail:3",
        "mail:7",
        "suspend:14",
        "mail:14",
        "end:30",
    ]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"charge_days": [0]}, "charge_days"),
        ({"charge_days": [3, 3]}, "charge_days"),
        ({"charge_days": [5, 3]}, "charge_days"),
        ({"charge_days": [True]}, "charge_days"),
        ({"charge_days": "3"}, "charge_days"),
        ({"charge_days": list(range(1, 12))}, "charge_days"),
        ({"mail_days": [366]}, "mail_days"),
        ({"mail_days": [14]}, "mail_days"),
        ({"suspend_day": 0}, "suspend_day"),
        ({"suspend_day": 1.5}, "suspend_day"),
        ({"end": "sue"}, "end"),
        ({"end": ["keep_open"]}, "end"),
        ({"end_day": 30}, "end_day"),
        ({"end": "mark_uncollectible"}, "end_day"),
        ({"end": "mark_uncollectible", "end_day": 13}, "end_day"),
        ({"grace": 3}, None),
    ],
)
def test_what_is_no_policy_is_refused_by_its_field(changes, field):
    with pytest.raises(CallerError) as refused:
        checked(SHIPPED.document | changes)
    assert (refused.value.code, refused.value.field) == ("dunning_policy_invalid", field)


def test_the_database_keeps_steps_and_cases_as_they_are(organisation, declined, stripe):
    swept(0, stripe)
    with tenant_scope(organisation.id):
        step = DunningStep.objects.get()
        for forbidden, refusal in (
            (lambda: DunningStep.objects.update(note="other"), IntegrityError),
            (lambda: DunningStep.objects.all()._raw_delete("default"), ProgrammingError),
            (lambda: DunningCase.objects.all()._raw_delete("default"), ProgrammingError),
        ):
            with pytest.raises(refusal), transaction.atomic():
                forbidden()
        step.pk, step._state.adding = None, True
        with pytest.raises(IntegrityError), transaction.atomic():
            step.save(force_insert=True)
