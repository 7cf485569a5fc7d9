"""Credit pays itself ahead when it runs low: one charge at a time, within a month's maximum."""

import contextlib
from collections.abc import Callable
from datetime import timedelta
from threading import Barrier, Thread

import pytest
from django.db import IntegrityError, connections

from billing.payments import tasks, top_ups
from billing.payments.accounts import attach_test_card
from billing.payments.auto_reload import (
    ReloadTerms,
    reload_if_low,
    resume_auto_reload,
    set_auto_reload,
    spendable_minor,
)
from billing.payments.heard import heard
from billing.payments.models import AutoReload, BillingAccount, TopUp
from billing.payments.provider import ProviderFault, ProviderUnavailable
from billing.payments.stripe import Stripe
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from tenants.scoping import tenant_scope
from tests.billing.credits.rig import give
from tests.billing.ledger.rig import held
from tests.billing.payments.rig import ADayLater, Faulty, Killed, customer_of
from tests.billing.world import ingest, used
from tests.stripe_sandbox.rig import KEY

pytestmark = pytest.mark.django_db(transaction=True)
DECLINING = "pm_card_chargeCustomerFail"
TERMS = ReloadTerms(is_on=True, threshold="10", amount="20", month_max="45")


def reloading(tenant, stripe, card="pm_card_visa", terms=TERMS) -> None:
    """A tenant with a card that reloads by itself."""
    attach_test_card(tenant.id, stripe, card)
    set_auto_reload(tenant.id, terms, by="owner")


def reloads(tenant) -> list[tuple[str, int]]:
    with tenant_scope(tenant.id):
        return list(TopUp.objects.order_by("created_at").values_list("state", "amount_minor"))


def pause_of(tenant) -> str:
    with tenant_scope(tenant.id):
        return str(AutoReload.objects.get().pause_note)


def assert_reloaded(tenant, there, minor):
    """As much was charged as was granted, and as is in the ledger."""
    assert there.paid_minor(customer_of(tenant.id)) == minor
    assert held(tenant.id) == {"payments": minor, "credits:purchased": -minor}


def test_low_credit_is_reloaded_once_and_is_low_no_more(organisation, stripe, there):
    reloading(organisation, stripe)
    for _ in range(3):
        tasks.reload()
    assert reloads(organisation) == [("paid", 2000)]
    assert_reloaded(organisation, there, 2000)


def test_what_the_running_period_used_is_taken_off(organisation, prices, stripe, there):
    give(organisation, 1200, "enough", kind="purchased")
    reloading(organisation, stripe)
    assert reload_if_low(organisation.id, stripe) is None
    at = clock.now() - timedelta(milliseconds=2)
    ingest(used(organisation, prices, at, "tiny-lm", tokens_out=500_000))
    with tenant_scope(organisation.id):
        assert spendable_minor() == 1200 - 301
    tasks.reload()
    assert reloads(organisation) == [("paid", 2000)]


def test_credit_at_the_threshold_is_not_low(organisation, stripe):
    give(organisation, 1000, "just enough")
    reloading(organisation, stripe)
    tasks.reload()
    assert reloads(organisation) == []


def test_a_month_has_its_maximum_and_the_next_begins_anew(organisation, stripe, there):
    reloading(organisation, stripe, terms=ReloadTerms(True, "1000", "20", "45"))
    for _ in range(4):
        tasks.reload()
    assert reloads(organisation) == [("paid", 2000)] * 2
    month = (clock.now().replace(day=1) + timedelta(days=32)).replace(
        day=1, hour=0, minute=0, second=1
    )
    with clock.frozen(month):
        tasks.reload()
    assert reloads(organisation) == [("paid", 2000)] * 3
    assert_reloaded(organisation, there, 6000)


def test_postgresql_refuses_what_is_beyond_the_maximum_or_a_second_at_once(organisation, stripe):
    def auto(key: str, **values: object) -> None:
        with tenant_scope(organisation.id):
            TopUp.objects.create(
                tenant_id=organisation.id, origin="auto", currency="USD", idempotency_key=key,
                created_by="tests", **{"amount_minor": 2000} | values,
            )  # fmt: skip

    with pytest.raises(IntegrityError, match="does not reload"):
        auto("no rules")
    reloading(organisation, stripe)
    with pytest.raises(IntegrityError, match="in a month"):
        auto("too much", amount_minor=4501)
    auto("first")
    with pytest.raises(IntegrityError, match="top_up_one_reload_at_a_time"):
        auto("second")
    with tenant_scope(organisation.id):
        TopUp.objects.update(state="failed")
    auto("first again", amount_minor=4500)  # what failed does not count
    with tenant_scope(organisation.id):
        TopUp.objects.filter(state="wanted").update(state="failed")
        AutoReload.objects.update(paused_at=clock.now())
    with pytest.raises(IntegrityError, match="does not reload"):
        auto("paused")


def test_many_workers_at_once_charge_once(organisation, stripe, there):
    reloading(organisation, stripe)
    barrier, failed = Barrier(4), []

    def worker():
        barrier.wait()
        try:
            reload_if_low(organisation.id, Stripe(KEY, there.sandbox.url))
        except Exception as failure:
            failed.append(failure)
        finally:
            connections.close_all()

    threads = [Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each for each in failed if not isinstance(each, WorldError)] == []
    tasks.reload()
    assert reloads(organisation) == [("paid", 2000)]
    assert_reloaded(organisation, there, 2000)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "fail",
    ["killed", *(pytest.param(each, marks=pytest.mark.long) for each in ("fault", "away"))],
)
def test_a_failure_at_any_call_charges_once(onboard, stripe, there, fail, after):
    failures: dict[str, Callable[[], BaseException]] = {
        "killed": Killed,
        "fault": lambda: ProviderFault("fault", "HTTP 500"),
        "away": lambda: ProviderUnavailable("away", "no answer"),
    }
    seen: set[str] = set()
    for at in range(1, 10):
        tenant = onboard(f"tenant-{at}")
        reloading(tenant, stripe)
        faulty = Faulty(stripe, at, after=after, fail=failures[fail])
        with contextlib.suppress(Killed, WorldError):
            reload_if_low(tenant.id, faulty)
        seen.update(faulty.calls)
        for _ in range(2):
            reload_if_low(tenant.id, stripe)
        assert reloads(tenant) == [("paid", 2000)]
        assert_reloaded(tenant, there, 2000)
        if not faulty.has_failed:
            break
    assert seen == {"charge"}


def test_a_day_later_the_charge_is_found_and_not_made_again(organisation, stripe, there):
    reloading(organisation, stripe)
    with pytest.raises(Killed):
        reload_if_low(organisation.id, Faulty(stripe, 1, after=True, fail=Killed))
    assert reloads(organisation) == [("wanted", 2000)]
    with clock.frozen(clock.now() + timedelta(hours=25)):
        reload_if_low(organisation.id, ADayLater(KEY, there.sandbox.url))
    assert reloads(organisation) == [("paid", 2000)]
    assert_reloaded(organisation, there, 2000)


def test_an_event_finishes_what_a_worker_left(organisation, stripe, there):
    reloading(organisation, stripe)
    with pytest.raises(Killed):
        reload_if_low(organisation.id, Faulty(stripe, 1, after=True, fail=Killed))
    with tenant_scope(organisation.id):
        subject = TopUp.objects.get().id
    news = {"object": "payment_intent", "metadata": {"meterplane_subject": str(subject)}}
    assert [heard(news, stripe) for _ in range(2)] == ["top-up paid"] * 2
    assert_reloaded(organisation, there, 2000)


@pytest.mark.parametrize("card", [DECLINING, "pm_card_authenticationRequired"])
def test_a_decline_pauses_until_the_card_changes(organisation, stripe, there, card):
    reloading(organisation, stripe, card)
    for _ in range(3):
        tasks.reload()
    assert reloads(organisation) == [("failed", 2000)]
    assert "declined" in pause_of(organisation)
    attach_test_card(organisation.id, stripe)
    assert pause_of(organisation) == ""
    tasks.reload()
    assert reloads(organisation) == [("failed", 2000), ("paid", 2000)]
    assert_reloaded(organisation, there, 2000)


def test_a_person_resumes_it(organisation, stripe):
    reloading(organisation, stripe, DECLINING)
    with pytest.raises(CallerError, match="not paused"):
        resume_auto_reload(organisation.id, by="owner")
    tasks.reload()
    resume_auto_reload(organisation.id, by="owner")
    tasks.reload()
    assert reloads(organisation) == [("failed", 2000)] * 2


@pytest.mark.parametrize("is_recorded", [False, True])
def test_a_worker_killed_at_a_decline_does_not_charge_again(
    organisation, stripe, there, monkeypatch, is_recorded
):
    reloading(organisation, stripe, DECLINING)
    with monkeypatch.context() as dying:
        if is_recorded:  # in its step, and not yet in the top-up
            dying.setattr(top_ups, "apply_found", dies)
        provider = stripe if is_recorded else Deaf(KEY, there.sandbox.url)
        with pytest.raises(Killed):
            reload_if_low(organisation.id, provider)
    assert reloads(organisation) == [("wanted", 2000)]
    for _ in range(2):
        reload_if_low(organisation.id, stripe)
    assert reloads(organisation) == [("failed", 2000)]
    assert "declined" in pause_of(organisation)
    intents = there.client.v1.payment_intents.list({"customer": customer_of(organisation.id)})
    assert len(intents.data) == 1


def dies(*_: object) -> None:
    raise Killed


class Deaf(Stripe):
    """The worker dies before it knows the answer."""

    def send(self, kind, *rest):
        with contextlib.suppress(Exception):
            super().send(kind, *rest)
        raise Killed


def test_without_a_card_it_is_not_switched_on_and_pauses(organisation, stripe):
    with pytest.raises(CallerError) as refused:
        set_auto_reload(organisation.id, TERMS, by="owner")
    assert (refused.value.code, refused.value.field) == ("no_card", "is_on")
    reloading(organisation, stripe)
    with tenant_scope(organisation.id):
        BillingAccount.objects.update(default_payment_method="")
    tasks.reload()
    assert reloads(organisation) == []
    assert pause_of(organisation) == "There is no card to charge."


@pytest.mark.parametrize(
    ("threshold", "amount", "month_max", "field"),
    [
        ("0", "20", "45", "threshold"), ("x", "20", "45", "threshold"),
        ("10", "4.99", "45", "amount"), ("10", "20", "19.99", "month_max"),
        ("10", "20", "", "month_max"), ("10", "20", "1e30", "month_max"),
    ],
)  # fmt: skip
def test_rules_that_make_no_sense_are_refused_at_their_field(
    organisation, stripe, threshold, amount, month_max, field
):
    attach_test_card(organisation.id, stripe)
    with pytest.raises(CallerError) as refused:
        set_auto_reload(
            organisation.id, ReloadTerms(True, threshold, amount, month_max), by="owner"
        )
    assert (refused.value.code, refused.value.field) == ("top_up_invalid", field)
    with tenant_scope(organisation.id):
        assert not AutoReload.objects.exists()
