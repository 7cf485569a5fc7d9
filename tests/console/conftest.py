"""The console is asked for through Django's own client, as an operator."""

from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.test import Client

BACKEND = "django.contrib.auth.backends.ModelBackend"


@pytest.fixture(scope="session", autouse=True)
def static_root() -> None:
    """WhiteNoise warns of a missing folder, and a warning is an error here."""
    Path(django_settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)


@pytest.fixture(autouse=True)
def quick_passwords(settings) -> None:
    """Half a second per password is right for people and wrong for fixtures."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def operator(db: None) -> Client:
    """A superuser, signed in."""
    user = User.objects.create_superuser("op@example.com", "op@example.com", "x" * 20)
    client = Client()
    client.force_login(user, backend=BACKEND)
    return client
