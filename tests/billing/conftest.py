"""A tenant that began in September 2026, with prices, seen from the end of November."""

from collections.abc import Callable, Iterator
from uuid import UUID

import pytest

from meterplane.kernel import clock
from tests.billing.world import publish_prices, utc
from tests.conftest import OnboardedOrganisation

NOW = utc(11, 24, 12)


@pytest.fixture
def late_november() -> Iterator[None]:
    """The clock stands at noon of 24 November 2026."""
    with clock.frozen(NOW):
        yield


@pytest.fixture
def acme(
    late_november: None, onboard: Callable[..., OnboardedOrganisation]
) -> OnboardedOrganisation:
    """An organisation made on 10 September 2026."""
    with clock.frozen(utc(9, 10)):
        return onboard("acme")


@pytest.fixture
def prices(db: None, late_november: None) -> UUID:
    """The published price version of these tests."""
    return publish_prices()
