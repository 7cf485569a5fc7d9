"""Pages are asked for through Django's own client, middleware included."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import User
from django.test import Client

from meterplane.kernel import clock
from tenants.models import Member
from tenants.scoping import tenant_scope


@pytest.fixture
def third_of_november() -> Iterator[None]:
    """A Tuesday afternoon in a young month; no test changes its mind at midnight."""
    with clock.frozen(datetime(2026, 11, 3, 15, 20, tzinfo=UTC)):
        yield


@pytest.fixture
def signed_in(db: None) -> Callable[[User], Client]:
    """A client of a user who has signed in."""

    def make(user: User) -> Client:
        client = Client()
        client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
        return client

    return make


@pytest.fixture
def owner(organisation, signed_in: Callable[[User], Client]) -> Client:
    """The owner of `organisation`, signed in."""
    return signed_in(organisation.owner)


@pytest.fixture
def as_role(organisation, signed_in: Callable[[User], Client]) -> Callable[[str], Client]:
    """A member of `organisation` in a role, signed in."""

    def make(role: str) -> Client:
        user = User.objects.create_user(f"{role}@role.example", f"{role}@role.example", "x" * 20)
        with tenant_scope(organisation.id):
            Member.objects.create(tenant_id=organisation.id, user=user, role=role)
        return signed_in(user)

    return make
