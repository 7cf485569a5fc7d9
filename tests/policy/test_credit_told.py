"""When low credit is told, and how much of it can be counted."""

from datetime import timedelta

import pytest

from meterplane.kernel import clock
from meterplane.policy.alerts import look_at
from meterplane.policy.credit_shown import shown_credit
from meterplane.policy.hold_to_credit import hold_to_credit
from meterplane.policy.models import Alert
from tenants.scoping import tenant_scope
from tests.billing.credits.rig import give
from tests.billing.world import publish_prices, utc
from tests.policy.credit_rig import CENT_NANO, Gateway

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def door(onboard, redis_url):
    """A gateway of a tenant that is held to its credit, and has none yet."""
    with clock.frozen(utc(11, 24)):
        tenant = onboard("acme")
        made = Gateway(redis_url, tenant, publish_prices())
        hold_to_credit(tenant.id)
    yield made
    made.close()


def told(door):
    look_at(door.tenant.id)
    with tenant_scope(door.tenant.id):
        rows = Alert.objects.order_by("raised_at")
        return list(rows.values_list("threshold", "window", "used", "amount"))


def test_low_credit_is_told_once_until_more_is_granted(door):
    """Below a tenth of the newest grant."""
    now = utc(11, 24)

    def after(cents):
        nonlocal now
        with clock.frozen(now):
            assert door.ask(cents * CENT_NANO) == [200]
            door.ship()
        now += timedelta(minutes=1)
        with clock.frozen(now):
            return told(door)

    first = ("balance", "credit", 91 * CENT_NANO, 100 * CENT_NANO)
    second = ("balance", "credit", 191 * CENT_NANO, 200 * CENT_NANO)
    with clock.frozen(now):
        assert told(door) == []
        give(door.tenant, 100)
    assert after(90) == []
    assert after(1) == [first]
    assert after(1) == [first]
    with clock.frozen(now):
        give(door.tenant, 100, "more")
    assert after(98) == [first]
    assert after(1) == [first, second]


def test_credit_beyond_what_can_be_counted_admits_up_to_that(door):
    """A thousand billion dollars are more nano than a column holds."""
    with clock.frozen(utc(11, 24)):
        give(door.tenant, 10**14)
        give(door.tenant, 10**14, "more")
        assert door.ask(CENT_NANO) == [200]
        with tenant_scope(door.tenant.id):
            assert shown_credit().spendable_nano == 2**63 - 1 - CENT_NANO
