"""The console is asked for through Django's own client, as an operator."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

BACKEND = "django.contrib.auth.backends.ModelBackend"


@pytest.fixture
def operator(db: None) -> Client:
    """A superuser, signed in."""
    user = User.objects.create_superuser("op@example.com", "op@example.com", "x" * 20)
    client = Client()
    client.force_login(user, backend=BACKEND)
    return client
