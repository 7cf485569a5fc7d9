"""How allauth behaves here: people sign in, and are invited; nobody signs up by themselves."""

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest


class Adapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth carries no types
    """Sign-up is closed in this slice: organisations are onboarded by an operator."""

    def is_open_for_signup(self, request: HttpRequest) -> Any:
        """Never."""
        return False
