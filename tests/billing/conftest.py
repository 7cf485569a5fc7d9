"""A tenant that began in September 2026, with prices, seen from the end of November."""

from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
from pytest_django.fixtures import Settings

from meterplane.kernel import clock
from tests.billing.world import publish_prices, utc
from tests.conftest import OnboardedOrganisation

NOW = utc(11, 24, 12)


@pytest.fixture(autouse=True)
def cheap_passwords(settings: Settings) -> None:
    """Hashing owners' passwords properly would be most of the time these tests take."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


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
