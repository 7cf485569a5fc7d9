"""The card typed in last is the one that is charged, however one hears of it."""

import contextlib
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.conf import settings

from billing.payments import tasks
from billing.payments.accounts import attach_test_card, ensure_account
from billing.payments.cards import (
    open_billing_portal,
    open_card_setup,
    refresh_card,
    settle_card_setup,
)
from billing.payments.collect import collect
from billing.payments.heard import heard
from billing.payments.models import BillingAccount, CardSetup
from billing.payments.provider import ProviderFault
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from tenants.scoping import tenant_scope
from tests.billing.payments.rig import Faulty, Killed, read

pytestmark = pytest.mark.django_db(transaction=True)
ANOTHER, ANOTHERS = "4000000000000341", ("visa", "0341")


def card_of(tenant) -> tuple[str, str]:
    with tenant_scope(tenant.id):
        return BillingAccount.objects.values_list("card_brand", "card_last4").get()


def newest_setup(tenant) -> CardSetup:
    with tenant_scope(tenant.id):
        found = CardSetup.objects.first()
    assert found is not None
    return found


def add_card(tenant, stripe, there, number: str = "4242424242424242") -> CardSetup:
    """Typed in, and nobody told."""
    there.press(open_card_setup(tenant.id, stripe, by="owner"), number)
    return newest_setup(tenant)


def test_a_card_typed_in_at_stripe_is_charged_for_what_waits(organisation, billed, stripe, there):
    invoice = billed(organisation)
    collect(organisation.id, invoice.id, stripe)
    assert read(organisation.id, invoice).collection_state == "awaiting_payment"
    url = open_card_setup(organisation.id, stripe, by="owner")
    setup = newest_setup(organisation)
    assert settle_card_setup(organisation.id, setup.id, stripe) == "wanted"
    assert there.press(url) == f"{settings.PUBLIC_WEB_URL}/billing/card/{setup.id}/"
    assert settle_card_setup(organisation.id, setup.id, stripe) == "chosen"
    assert card_of(organisation) == ("visa", "4242")
    tasks.sweep()
    assert read(organisation.id, invoice).status == "paid"


def test_a_card_nobody_told_of_is_found_by_the_sweep(organisation, stripe, there):
    add_card(organisation, stripe, there, ANOTHER)
    tasks.sweep()
    assert newest_setup(organisation).state == "wanted"  # too soon to look
    with clock.frozen(clock.now() + tasks.LOOK_AGAIN_AFTER + timedelta(minutes=1)):
        tasks.sweep()
    assert newest_setup(organisation).state == "chosen"
    assert card_of(organisation) == ANOTHERS


def test_late_and_doubled_news_of_an_older_card_do_not_replace_a_newer_one(
    organisation, stripe, there
):
    older = add_card(organisation, stripe, there)
    there.sandbox.control("/clock", {"advance_s": 5})
    newer = add_card(organisation, stripe, there, ANOTHER)
    news = {"object": "checkout.session", "metadata": {"meterplane_subject": str(newer.id)}}
    assert heard(news, stripe) == "card chosen"
    for _ in range(2):
        about = news | {"metadata": {"meterplane_subject": str(older.id)}}
        assert heard(about, stripe) == "card chosen"
        assert heard(news, stripe) == "card chosen"
        assert card_of(organisation) == ANOTHERS


def test_a_card_changed_at_stripe_is_seen(organisation, stripe, there):
    add_card(organisation, stripe, there)
    settle_card_setup(organisation.id, newest_setup(organisation).id, stripe)
    customer_id = ensure_account(organisation.id, stripe)
    changed = there.client.v1.payment_methods.attach(
        "pm_card_mastercard", {"customer": customer_id}
    )
    there.client.v1.customers.update(
        customer_id, {"invoice_settings": {"default_payment_method": changed.id}}
    )
    assert heard({"object": "customer", "id": customer_id}, stripe) == "another card"
    assert card_of(organisation) == ("mastercard", "4444")
    assert heard({"object": "customer", "id": customer_id}, stripe) == "the card as known"
    there.client.v1.payment_methods.detach(changed.id)
    assert refresh_card(organisation.id, stripe)
    assert card_of(organisation) == ("", "")
    assert heard({"object": "customer", "id": "cus_other"}, stripe) == "not a customer of ours"
    assert "/p/session/" in open_billing_portal(organisation.id, stripe)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fail", ["killed", pytest.param("fault", marks=pytest.mark.long)])
def test_a_failure_at_any_call_leaves_the_card_that_was_typed_in(
    onboard, stripe, there, fail, after
):
    failures: dict[str, Callable[[], BaseException]] = {
        "killed": Killed,
        "fault": lambda: ProviderFault("fault", "HTTP 500"),
    }
    seen: set[str] = set()
    for at in range(1, 20):
        tenant = onboard(f"tenant-{at}")
        setup = add_card(tenant, stripe, there)
        faulty = Faulty(stripe, at, after=after, fail=failures[fail])
        with contextlib.suppress(Killed, WorldError):
            settle_card_setup(tenant.id, setup.id, faulty)
        seen.update(faulty.calls)
        settle_card_setup(tenant.id, setup.id, stripe)
        assert card_of(tenant) == ("visa", "4242")
        if not faulty.has_failed:
            break
    assert seen == {"checkout", "payment_method", "choose_card", "card"}


def test_a_visit_that_came_to_nothing_is_over_and_changes_nothing(organisation, stripe, there):
    attach_test_card(organisation.id, stripe)
    open_card_setup(organisation.id, stripe, by="owner")
    setup = newest_setup(organisation)
    there.client.v1.checkout.sessions.expire(setup.checkout_id)
    assert settle_card_setup(organisation.id, setup.id, stripe) == "expired"
    assert card_of(organisation) == ("visa", "4242")


def test_a_visit_of_another_organisation_is_missing(organisation, onboard, stripe, there):
    setup = add_card(organisation, stripe, there)
    other = onboard("globex")
    attach_test_card(other.id, stripe)
    with pytest.raises(CallerError, match="no such visit") as refused:
        settle_card_setup(other.id, setup.id, stripe)
    assert refused.value.status == 404
