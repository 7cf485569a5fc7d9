"""Sandboxes to listen to, and whose answers are spoilt."""

from tests.stripe_sandbox.conftest import books, own_sandbox, receiver, sandbox

__all__ = ["books", "own_sandbox", "receiver", "sandbox"]
