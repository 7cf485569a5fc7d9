"""Which days are compared when, whatever happens to who compares them."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction

from billing.payments import tasks
from billing.payments.accounts import attach_test_card
from billing.payments.models import PaymentFinding
from billing.payments.reconcile import days
from billing.payments.reconcile.days import Compared, reconcile_due
from meterplane.kernel import clock
from tenants.scoping import system_scope
from tests.billing.payments.rig import Killed

pytestmark = pytest.mark.django_db(transaction=True)


def test_recent_days_are_compared_often_and_all_each_night(organisation, stripe, monkeypatch):
    looked: list[int] = []
    began = clock.now()
    attach_test_card(organisation.id, stripe)

    def compared(_provider, start, _end):
        looked.append((clock.now().date() - start.date()).days)
        return []

    monkeypatch.setattr(days, "look", compared)
    ages: list[list[int]] = []
    for later in (
        *(timedelta(0), timedelta(minutes=9), timedelta(minutes=11)),
        *(timedelta(days=40), timedelta(days=41)),
    ):
        looked.clear()
        with clock.frozen(began + later):
            reconcile_due(stripe)
        ages.append(list(looked))
    assert ages == [
        [0],
        [],
        [0],
        list(range(41)),  # newest first
        list(range(42)),  # a night has passed
    ]


def test_a_worker_that_dies_leaves_its_day_to_the_next(organisation, stripe, monkeypatch):
    attach_test_card(organisation.id, stripe)

    def dies(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(days, "look", dies)
        with pytest.raises(Killed):
            reconcile_due(stripe)
    monkeypatch.setattr(days, "look", lambda *_: [])
    assert reconcile_due(stripe) == []
    with clock.frozen(clock.now() + days.HOLD + timedelta(seconds=1)):
        today = clock.now().date()
        assert Compared(today, 0, 0) in reconcile_due(stripe)


def test_the_task_says_nothing_where_the_provider_is_away(organisation, stripe, settings):
    attach_test_card(organisation.id, stripe)
    settings.STRIPE_API_BASE = "http://127.0.0.1:9"
    tasks.reconcile()
    tasks.catch_up_with_events()
    settings.STRIPE_API_KEY = ""
    tasks.reconcile()
    tasks.catch_up_with_events()


@pytest.mark.parametrize(
    "wrong",
    [
        {"problem": "different", "our_id": "a"},
        {"problem": "missing_here", "our_id": "a"},
        {"problem": "missing_there", "their_id": "in_1"},
        {"problem": "left_over"},
        {"problem": "odd", "our_id": "a", "their_id": "in_1"},
    ],
)
def test_postgresql_holds_that_a_finding_names_what_it_is_about(db, wrong):
    def create(**values: object) -> None:
        PaymentFinding.objects.create(
            provider="stripe", day=clock.now().date(), kind="invoice", said="x", **values
        )

    with system_scope("test"), pytest.raises(IntegrityError), transaction.atomic():
        create(**wrong)
    with system_scope("test"):
        create(problem="different", our_id="a", their_id="in_1")
        with pytest.raises(IntegrityError), transaction.atomic():
            create(problem="different", our_id="a", their_id="in_1")
