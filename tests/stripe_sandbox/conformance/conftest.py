"""Every scenario runs on the sandbox, and on Stripe where a test key is given."""

import os
from collections.abc import Iterator

import pytest

from tests.stripe_sandbox.conformance.account import Account
from tests.stripe_sandbox.rig import KEY, Sandbox

VARIABLE = "STRIPE_TEST_KEY"
# What is sent there does not arrive: no scenario waits for it.
PUBLIC_HOOK = "https://example.com/hooks/conformance"


def targets() -> list[object]:
    """The sandbox, and Stripe if the environment has a key that cannot move money."""
    key = os.environ.get(VARIABLE, "")
    if not key:
        return ["sandbox"]
    if not key.startswith(("sk_test_", "rk_test_")):
        raise pytest.UsageError(f"{VARIABLE} takes sk_test_ and rk_test_ keys only")
    return ["sandbox", pytest.param("stripe", marks=pytest.mark.enable_socket)]


@pytest.fixture(params=targets())
def account(request: pytest.FixtureRequest) -> Iterator[Account]:
    if request.param == "stripe":
        given = Account(os.environ[VARIABLE], None, PUBLIC_HOOK)
    else:
        sandbox: Sandbox = request.getfixturevalue("sandbox")
        given = Account(KEY, sandbox.url, "http://127.0.0.1:9/hooks/conformance")
    yield given
    given.close()
