"""Tenants of the narrated months: made on their first day, in their own currency."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from pytest_django.fixtures import Settings

from meterplane.kernel import clock
from tests.conftest import OnboardedOrganisation
from tests.scenarios.months.story import Story, instant


@pytest.fixture(autouse=True)
def cheap_passwords(settings: Settings) -> None:
    """Hashing owners' passwords properly would be most of the time these tests take."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def begins(onboard: Callable[..., OnboardedOrganisation]) -> Iterator[Callable[..., Story]]:
    """`begins("acme", "2023-04-01", PRICES)`: a customer from that day on, at these prices.

    The clock stands at that day wherever a story does not say another.
    """
    with ExitStack() as clocks:

        def begin(slug: str, day: str, prices: str, currency: str = "USD") -> Story:
            clocks.enter_context(clock.frozen(instant(day)))
            return Story.begun(onboard(slug, currency=currency), prices, currency)

        yield begin
