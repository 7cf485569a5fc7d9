"""Credit that is paid ahead is granted once, for exactly what was paid."""

import contextlib
import dataclasses
import random
from collections.abc import Callable
from datetime import timedelta
from threading import Barrier, Thread

import psycopg
import pytest
from django.db import IntegrityError, connections

from billing.credits.models import CreditGrant
from billing.ledger.audit import audit
from billing.payments import tasks
from billing.payments.accounts import attach_test_card
from billing.payments.heard import heard
from billing.payments.models import TopUp
from billing.payments.provider import ProviderFault, ProviderUnavailable
from billing.payments.stripe import Stripe
from billing.payments.top_up_terms import top_up_minor
from billing.payments.top_ups import buy_credit, checkout_url, settle_top_up
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from tenants.scoping import tenant_scope
from tests.billing.ledger.rig import held, role
from tests.billing.payments.rig import ADayLater, Faulty, Killed, customer_of
from tests.stripe_sandbox.rig import KEY

pytestmark = pytest.mark.django_db(transaction=True)


def buy(tenant, stripe, amount="25", key="once") -> TopUp:
    return buy_credit(tenant.id, amount, stripe, idempotency_key=key, by="owner@acme.example")


def of(tenant) -> TopUp:
    """The tenant's newest."""
    with tenant_scope(tenant.id):
        found: TopUp = TopUp.objects.select_related("grant").latest("created_at")
        return found


def news_of(top_up: TopUp, kind: str = "checkout.session") -> dict[str, object]:
    return {"object": kind, "metadata": {"meterplane_subject": str(top_up.id)}}


def assert_granted_once(tenant, there, minor=2500):
    """One grant, of what was paid there, and the same in the ledger."""
    with tenant_scope(tenant.id):
        [grant] = CreditGrant.objects.all()
    assert (grant.kind, grant.currency, grant.amount_minor) == ("purchased", "USD", minor)
    assert there.paid_minor(customer_of(tenant.id)) == minor
    assert of(tenant).state == "paid"
    assert of(tenant).grant_id == grant.id
    assert held(tenant.id) == {"payments": minor, "credits:purchased": -minor}


def test_credit_is_paid_at_stripe_and_granted_when_the_customer_comes_back(
    organisation, stripe, there, settings
):
    top_up = buy(organisation, stripe)
    assert settle_top_up(organisation.id, top_up.id, stripe).state == "wanted"
    back = there.press(checkout_url(top_up, stripe))
    assert back == f"{settings.PUBLIC_WEB_URL}/billing/top-ups/{top_up.id}/"
    for _ in range(2):
        assert settle_top_up(organisation.id, top_up.id, stripe).state == "paid"
    assert_granted_once(organisation, there)
    assert checkout_url(of(organisation), stripe) == ""
    assert all(verdict.holds for verdict in audit())


def test_asked_twice_with_one_key_it_is_one_checkout(organisation, stripe, there):
    first, again = buy(organisation, stripe), buy(organisation, stripe)
    assert (first.id, first.payment_id) == (again.id, again.payment_id)
    with pytest.raises(CallerError) as refused:
        buy(organisation, stripe, "26")
    assert (refused.value.code, refused.value.status) == ("idempotency_key_reused", 409)
    sessions = there.client.v1.checkout.sessions.list({"customer": customer_of(organisation.id)})
    assert [each.id for each in sessions.data] == [first.payment_id]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "fail",
    ["killed", *(pytest.param(each, marks=pytest.mark.long) for each in ("fault", "away"))],
)
def test_a_failure_at_any_call_leaves_one_checkout_and_one_grant(
    onboard, stripe, there, fail, after
):
    failures: dict[str, Callable[[], BaseException]] = {
        "killed": Killed,
        "fault": lambda: ProviderFault("fault", "HTTP 500"),
        "away": lambda: ProviderUnavailable("away", "no answer"),
    }
    seen: set[str] = set()
    for at in range(1, 20):
        tenant = onboard(f"tenant-{at}")
        faulty = Faulty(stripe, at, after=after, fail=failures[fail])
        with contextlib.suppress(Killed, WorldError):
            buy(tenant, faulty)
        if not faulty.has_failed:
            there.press(checkout_url(buy(tenant, stripe), stripe))
            with contextlib.suppress(Killed, WorldError):
                settle_top_up(tenant.id, of(tenant).id, faulty)
        seen.update(faulty.calls)
        top_up = buy(tenant, stripe)
        if checkout_url(top_up, stripe):
            there.press(checkout_url(top_up, stripe))
        settle_top_up(tenant.id, top_up.id, stripe)
        assert_granted_once(tenant, there)
        sessions = there.client.v1.checkout.sessions.list({"customer": customer_of(tenant.id)})
        assert len(sessions.data) == 1
        if not faulty.has_failed:
            break
    assert {"customer", "checkout"} <= seen


def test_a_day_later_the_checkout_is_found_and_not_opened_again(organisation, stripe, there):
    faulty = Faulty(stripe, 2, after=True, fail=Killed)
    with pytest.raises(Killed):
        buy(organisation, faulty)
    assert faulty.calls == ["customer", "checkout"]
    with clock.frozen(clock.now() + timedelta(hours=23, minutes=30)):
        top_up = buy(organisation, ADayLater(KEY, there.sandbox.url))
    there.press(checkout_url(top_up, stripe))
    settle_top_up(organisation.id, top_up.id, stripe)
    assert_granted_once(organisation, there)


def test_a_payment_nobody_told_of_is_found_by_the_sweep(organisation, stripe, there):
    there.press(checkout_url(buy(organisation, stripe), stripe))
    with clock.frozen(clock.now() + tasks.LOOK_AGAIN_AFTER + timedelta(minutes=1)):
        tasks.sweep()
    assert_granted_once(organisation, there)


def test_news_doubled_and_in_any_order_grant_once(onboard, stripe, there):
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for number in range(4):
        tenant = onboard(f"tenant-{number}")
        top_up = buy(tenant, stripe)
        news = [news_of(top_up), news_of(top_up, "payment_intent")] * 2
        chance.shuffle(news)
        pay_at = chance.randrange(len(news))
        for at, each in enumerate(news):
            if at == pay_at:
                there.press(checkout_url(top_up, stripe))
            heard(each, stripe)
        assert_granted_once(tenant, there)


def test_heard_by_many_at_once_it_is_granted_once(organisation, stripe, there):
    top_up = buy(organisation, stripe)
    there.press(checkout_url(top_up, stripe))
    barrier, failed = Barrier(4), []

    def worker():
        barrier.wait()
        try:
            settle_top_up(organisation.id, top_up.id, Stripe(KEY, there.sandbox.url))
        except Exception as failure:
            failed.append(failure)
        finally:
            connections.close_all()

    threads = [Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert_granted_once(organisation, there)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"amount_minor": 2600}, "amount: ours 2500, theirs 2600"),
        ({"currency": "EUR"}, "currency: ours USD, theirs EUR"),
        ({"customer_id": "cus_other"}, "theirs cus_other"),
        ({"subject_id": "another"}, "theirs another"),
    ],
)
def test_what_was_paid_and_not_asked_for_is_parked_and_grants_nothing(
    organisation, stripe, there, changes, note
):
    """Somebody changed it at Stripe, by hand."""
    top_up = buy(organisation, stripe)
    there.press(checkout_url(top_up, stripe))

    class Changed(Stripe):
        def checkout(self, checkout_id):
            return dataclasses.replace(super().checkout(checkout_id), **changes)

    settled = settle_top_up(organisation.id, top_up.id, Changed(KEY, there.sandbox.url))
    assert settled.state == "parked"
    assert note in settled.note
    with tenant_scope(organisation.id):
        assert not CreditGrant.objects.exists()
    # A person settled it there; whoever looks again sees that it agrees.
    settle_top_up(organisation.id, top_up.id, stripe)
    assert_granted_once(organisation, there)


def test_declined_at_the_page_it_stays_wanted_and_expires_unpaid(organisation, stripe, there):
    top_up = buy(organisation, stripe)
    there.press(checkout_url(top_up, stripe), "4000000000000341")
    assert settle_top_up(organisation.id, top_up.id, stripe).state == "wanted"
    there.client.v1.checkout.sessions.expire(top_up.payment_id)
    settled = settle_top_up(organisation.id, top_up.id, stripe)
    assert (settled.state, settled.note) == ("expired", "Nothing was paid in time.")
    assert held(organisation.id) == {}


def test_a_top_up_of_another_organisation_is_missing(organisation, onboard, stripe):
    top_up = buy(organisation, stripe)
    other = onboard("globex")
    attach_test_card(other.id, stripe)
    with pytest.raises(CallerError) as refused:
        settle_top_up(other.id, top_up.id, stripe)
    assert refused.value.status == 404


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("5", "USD", 500), ("4.99", "USD", None), ("10000", "USD", 1_000_000),
        ("10000.01", "USD", None), ("25.001", "USD", None), ("-25", "USD", None),
        ("0", "USD", None), ("", "USD", None), ("1e3", "USD", 100_000), ("NaN", "USD", None),
        ("500", "JPY", 500), ("500.5", "JPY", None), ("20.05", "KWD", 20_050),
        ("20.055", "KWD", None), ("9" * 400, "USD", None),
    ],
)  # fmt: skip
def test_an_amount_is_within_bounds_and_exact(text, currency, minor):
    if minor is not None:
        assert top_up_minor(text, currency) == minor
        return
    with pytest.raises(CallerError) as refused:
        top_up_minor(text, currency)
    assert (refused.value.code, refused.value.field) == ("top_up_invalid", "amount")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE top_up SET amount_minor = 1",
        "UPDATE top_up SET state = 'wanted', grant_id = NULL",
        "UPDATE top_up SET state = 'failed', grant_id = NULL",
        "UPDATE top_up SET payment_id = 'cs_other'",
        "UPDATE top_up SET grant_id = NULL",
        "DELETE FROM top_up",
    ],
)
def test_postgresql_holds_what_was_paid(organisation, stripe, there, statement):
    top_up = buy(organisation, stripe)
    there.press(checkout_url(top_up, stripe))
    settle_top_up(organisation.id, top_up.id, stripe)
    with pytest.raises(psycopg.Error), role("meterplane_app", organisation.id) as connection:
        connection.execute(statement)
    assert_granted_once(organisation, there)


def test_postgresql_refuses_a_top_up_paid_by_another_grant(organisation, stripe, there):
    top_up = buy(organisation, stripe)
    there.press(checkout_url(top_up, stripe))
    settle_top_up(organisation.id, top_up.id, stripe)
    dearer = buy(organisation, stripe, "30", "twice")
    with tenant_scope(organisation.id):
        grant_id = TopUp.objects.get(id=top_up.id).grant_id
    with pytest.raises(IntegrityError), tenant_scope(organisation.id):
        TopUp.objects.filter(id=dearer.id).update(state="paid", grant_id=grant_id)
