"""Credit that an organisation is held to, beside interim invoices: each cent is spent once."""

import pytest

from billing.invoicing.close import close_period
from billing.invoicing.interim import make_interim
from billing.invoicing.thresholds import set_threshold
from meterplane.kernel import clock
from meterplane.policy.credit_shown import shown_credit
from meterplane.policy.hold_to_credit import hold_to_credit
from tenants.scoping import tenant_scope
from tests.billing.credits.rig import give
from tests.billing.world import publish_prices, utc
from tests.policy.credit_rig import CENT_NANO, Gateway

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def door(onboard, redis_url):
    """A gateway of a tenant that is invoiced from 1.00 on, and has 5.00 of credit."""
    with clock.frozen(utc(11, 24)):
        tenant = onboard("acme")
        version = publish_prices()
        give(tenant, 500)
        with tenant_scope(tenant.id):
            set_threshold("1", by="test")
    made = Gateway(redis_url, tenant, version)
    yield made
    made.close()


def spendable_cents(door):
    with tenant_scope(door.tenant.id):
        return shown_credit().spendable_nano / CENT_NANO


def spends(door, cents, at):
    with clock.frozen(at):
        assert door.ask(cents * CENT_NANO) == [200]


def test_what_an_interim_invoice_drew_before_is_not_spent_again_once_held(door):
    spends(door, 150, utc(11, 24, 1))
    door.ship()
    with clock.frozen(utc(11, 24, 2)):
        assert make_interim(door.tenant.id).total_minor == 0
    spends(door, 30, utc(11, 24, 1))  # within what it bills, and taken in after it
    door.ship()
    with clock.frozen(utc(11, 24, 3)):
        hold_to_credit(door.tenant.id)
        assert spendable_cents(door) == 320
        close_period(door.tenant.id, clock.now())
        assert spendable_cents(door) == 320
        assert door.ask(*[40 * CENT_NANO] * 9).count(200) == 8


def test_what_is_late_waits_for_the_months_own_invoice_and_is_spent_meanwhile(door):
    with clock.frozen(utc(11, 24)):
        hold_to_credit(door.tenant.id)
    spends(door, 100, utc(11, 24, 1))
    with clock.frozen(utc(11, 24, 2)):
        close_period(door.tenant.id, clock.now())
    door.ship()  # of a period that is closed
    spends(door, 150, utc(11, 24, 3))
    door.ship()
    with clock.frozen(utc(11, 24, 4)):
        assert spendable_cents(door) == 250
        assert make_interim(door.tenant.id).subtotal_minor == 0
        assert spendable_cents(door) == 250
    with clock.frozen(utc(11, 24, 5)):
        close_period(door.tenant.id, clock.now())
        assert spendable_cents(door) == 250
        assert door.ask(*[40 * CENT_NANO] * 9).count(200) == 6
