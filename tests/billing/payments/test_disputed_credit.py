"""Credit whose payment is disputed goes as far as it is unspent, and comes back when it is won."""

from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import IntegrityError

from billing.credits.models import CreditMovement, CreditRemaining
from billing.credits.refund import refund_credit
from billing.invoicing.close import close_period
from billing.payments.accounts import attach_test_card
from billing.payments.auto_reload import ReloadTerms, set_auto_reload
from billing.payments.dispute_port import DisputeTransaction
from billing.payments.disputes import mirror_dispute
from billing.payments.models import AutoReload
from billing.payments.top_ups import buy_credit, checkout_url, settle_top_up
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from tenants.scoping import tenant_scope
from tests.billing.credits.rig import booked, give, remaining
from tests.billing.payments.disputing import FEE, Bank, held_by, moved_by
from tests.billing.payments.test_credit_notes import assert_sound
from tests.billing.world import ingest, used

pytestmark = pytest.mark.django_db(transaction=True)


def bought(tenant, stripe, there, amount: str):
    """Credit, paid at a checkout."""
    top_up = buy_credit(tenant.id, amount, stripe, idempotency_key=amount, by="owner")
    there.press(checkout_url(top_up, stripe))
    return settle_top_up(tenant.id, top_up.id, stripe)


def spend(tenant, prices) -> None:
    """3.01, drawn by an invoice."""
    now = clock.now()
    ingest(used(tenant, prices, now - timedelta(milliseconds=2), "tiny-lm", tokens_out=500_000))
    assert close_period(tenant.id, now) is not None


def test_what_is_unspent_goes_what_is_spent_is_lost_and_other_grants_stay(
    organisation, prices, stripe, there
):
    bought(organisation, stripe, there, "20")
    give(organisation, 500, "welcome", priority=90)
    spend(organisation, prices)
    attach_test_card(organisation.id, stripe)
    set_auto_reload(organisation.id, ReloadTerms(True, "5", "5", "50"), by="owner")
    bank = Bank(there, stripe)
    charge_id = bank.charge(organisation)
    part = bank.disputes(charge_id, amount=1000)
    assert remaining(organisation) == {"Top-up": 699, "welcome": 500}
    assert moved_by(part)[-1] == ("credit_taken", 1000)
    assert "disputed" not in booked(organisation)  # what was taken was unspent: nothing to lose
    rest = bank.disputes(charge_id)
    assert remaining(organisation) == {"welcome": 500}
    assert booked(organisation)["disputed"] == 301
    with tenant_scope(organisation.id):
        assert "disputed" in AutoReload.objects.get().pause_note
    bank.decides(rest, "lost")
    assert booked(organisation)["dispute_losses"] == 301
    # Ten of twenty are paid after all: they pay for the three that were spent, whoever is first.
    bank.decides(part, "won")
    assert remaining(organisation) == {"Top-up": 699, "welcome": 500}
    held = booked(organisation)
    assert (held["payments"], held["dispute_fees"]) == (1000 - 2 * FEE, 2 * FEE)
    assert held["credits:purchased"] == -699
    assert not {"dispute_losses", "disputed"} & set(held)
    bank.decides(rest, "won")
    assert remaining(organisation) == {"Top-up": 1699, "welcome": 500}
    assert "dispute_losses" not in booked(organisation)
    assert (held_by(part), held_by(rest)) == (0, 0)
    assert_sound()


def test_credit_that_was_to_be_paid_back_is_paid_back_by_the_bank(organisation, stripe, there):
    top_up = bought(organisation, stripe, there, "20")
    refund_credit(tenant_id=organisation.id, grant_id=top_up.grant_id)
    bank = Bank(there, stripe)
    their_id = bank.disputes(bank.charge(organisation))
    bank.decides(their_id, "lost")
    assert booked(organisation) == {"payments": -FEE, "dispute_fees": FEE}
    assert_sound()


@pytest.mark.parametrize(
    ("currency", "amount", "minor", "fee"),
    [
        pytest.param("JPY", "500", 500, 1300, marks=pytest.mark.long),
        ("KWD", "5.5", 5500, 4500),
    ],
)
def test_currencies_without_cents_and_with_mills(
    onboard, stripe, there, currency, amount, minor, fee
):
    tenant = onboard("tenant", currency=currency)
    bought(tenant, stripe, there, amount)
    bank = Bank(there, stripe)
    their_id = bank.disputes(bank.charge(tenant), amount=minor // 5)
    assert booked(tenant) == {
        "payments": minor - minor // 5 - fee,
        "dispute_fees": fee,
        "credits:purchased": -(minor - minor // 5),
    }
    bank.decides(their_id, "won")
    assert booked(tenant)["credits:purchased"] == -minor
    assert booked(tenant)["payments"] == minor - fee
    assert_sound()


def test_an_account_in_another_currency_moves_the_disputed_amount(onboard, stripe, there):
    """What Stripe converts: the payment is of 500 yen, and dollars leave our account there."""
    tenant = onboard("tenant", currency="JPY")
    bought(tenant, stripe, there, "500")
    bank = Bank(there, stripe, reads=False)
    theirs = stripe.dispute(bank.disputes(bank.charge(tenant), moves_money=False))

    class Converting:
        moved = (DisputeTransaction("txn_1", "USD", -334, 1500, clock.now()),)

        def __getattr__(self, name):
            return getattr(stripe, name)

        def dispute(self, _their_id):
            return replace(theirs, transactions=self.moved)

    mirror_dispute(theirs.provider_dispute_id, Converting())  # type: ignore[arg-type]
    assert moved_by(theirs.provider_dispute_id) == [
        ("withdrawn", 500), ("fee_charged", 1500), ("credit_taken", 500),
    ]  # fmt: skip
    assert_sound()


def test_postgresql_gives_back_no_more_credit_than_disputes_took(organisation, stripe, there):
    top_up = bought(organisation, stripe, there, "20")
    given = give(organisation, 500, "welcome")
    bank = Bank(there, stripe)
    bank.disputes(bank.charge(organisation), amount=700)
    for grant_id, kind, amount in (
        (top_up.grant_id, "reinstated", 701),
        (top_up.grant_id, "disputed", 1301),
        (given, "disputed", 1),
    ):
        with pytest.raises(IntegrityError), tenant_scope(organisation.id):
            CreditMovement.objects.create(
                tenant_id=organisation.id, grant_id=grant_id, kind=kind, amount_minor=amount,
                source_id=uuid7(), at=clock.now(),
            )  # fmt: skip
    with tenant_scope(organisation.id):
        assert CreditRemaining.objects.get(grant_id=top_up.grant_id).remaining_minor == 1300
