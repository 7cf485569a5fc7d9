"""Organisations whose budgets a simulation spends."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import UUID

import pytest
from django.conf import settings

from meterplane.contracts.api_key import digest
from tenants.limits import set_limit
from tests.conftest import OnboardedOrganisation
from tests.simulation.crew import Crew, crew

REQUESTS_PER_MINUTE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Spender:
    """An organisation, and the digest its key is known by."""

    organisation: OnboardedOrganisation
    digest: str

    @property
    def scopes(self) -> dict[str, UUID]:
        made = self.organisation
        return {"key": made.key_id, "project": made.project_id, "organisation": made.id}


@pytest.fixture
def spender(
    transactional_db: None, onboard: Callable[..., OnboardedOrganisation]
) -> Callable[..., Spender]:
    """An organisation with a lifetime budget at each level: `spender("a", key=1000, ...)`.

    Its plan's rate is out of the way.
    """

    def make(slug: str, **amounts: int) -> Spender:
        made = onboard(slug)
        found = Spender(made, digest(made.secret, settings.API_KEY_PEPPER).hex())
        set_limit(
            tenant_id=made.id, level="organisation", scope_id=made.id, kind="requests",
            window="minute", amount=REQUESTS_PER_MINUTE,
        )  # fmt: skip
        for level, amount in amounts.items():
            set_limit(
                tenant_id=made.id, level=level, scope_id=found.scopes[level], kind="spend",
                window="lifetime", amount=amount,
            )  # fmt: skip
        return found

    return make


@pytest.fixture
def workers(transactional_db: None, redis_url: str) -> Iterator[Crew]:
    """Eight of them, on the servers of the tests."""
    with crew() as running:
        yield running
