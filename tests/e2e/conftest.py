"""A real browser against a live server with a tenant that has a past."""

from collections.abc import Callable, Iterator

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Browser

from meterplane.kernel import clock
from tenants.models import Member
from tenants.scoping import tenant_scope
from tests.conftest import OnboardedOrganisation
from tests.e2e import browser
from tests.portal import history


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for a module's tests, a new profile for each page.

    Not for the session: Playwright's sync API keeps an event loop running in this thread for as
    long as it is open, and no other test of the process could then run one of its own.
    """
    assert browser.chromium(), "these tests need Chromium (or Chrome) on the PATH"
    with browser.browser() as started:
        yield started


@pytest.fixture
def acme(
    onboard: Callable[..., OnboardedOrganisation],
    transactional_db: None,
) -> OnboardedOrganisation:
    """An organisation, another its owner may look at, and an operator."""
    history.offer()
    first, second = onboard("acme", monthly_budget_nano=50 * 10**9), onboard("beta")
    with tenant_scope(second.id):
        Member.objects.create(tenant_id=second.id, user=first.owner, role="viewer")
    User.objects.create_superuser("op@example.com", "op@example.com", "an operator's words")
    return first


@pytest.fixture
def lived(acme: OnboardedOrganisation) -> OnboardedOrganisation:
    """The same with usage since two days before this month, whose invoice is paid."""
    history.live_through(acme, days=clock.now().day + 1)
    history.invoice_last_month(acme)
    return acme
