"""The real sandbox over HTTP, and invoices of a tenant to collect through it.

The clock is the real one here: the sandbox has one of its own.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from uuid import UUID

import pytest
from pytest_django.fixtures import Settings

from billing.invoicing.close import close_period
from billing.invoicing.models import Invoice
from billing.payments.stripe import Stripe
from meterplane.kernel import clock
from tests.billing.payments.rig import There
from tests.billing.world import ingest, publish_prices, used
from tests.conftest import OnboardedOrganisation
from tests.stripe_sandbox.rig import KEY, Sandbox


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """One sandbox per test process; every test makes its own customers in it."""
    running = Sandbox(tmp_path_factory.mktemp("stripe") / "stripe.sqlite3").start()
    yield running
    running.stop()


@pytest.fixture
def there(sandbox: Sandbox) -> There:
    """What stands at the sandbox, read without our adapter."""
    return There(sandbox)


@pytest.fixture
def stripe(sandbox: Sandbox, settings: Settings) -> Stripe:
    """Our adapter, configured for the sandbox."""
    settings.STRIPE_API_BASE = sandbox.url
    settings.STRIPE_API_KEY = KEY
    return Stripe(KEY, sandbox.url)


@pytest.fixture
def prices(db: None) -> UUID:
    """Published now, as the clock is the real one."""
    return publish_prices()


@pytest.fixture
def billed(prices: UUID) -> Callable[..., Invoice]:
    """Close a period of a tenant with one request: 3.01 unless told otherwise."""

    def close(tenant: OnboardedOrganisation, **counts: int) -> Invoice:
        now = clock.now()
        at, counts = now - timedelta(milliseconds=2), {"tokens_out": 500_000} | counts
        ingest(used(tenant, prices, at, "tiny-lm", **counts))
        invoice = close_period(tenant.id, now)
        assert invoice is not None
        return invoice

    return close
