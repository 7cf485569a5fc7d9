"""A restricted key may do what the control door says, and is told what it lacks as Stripe does."""

import pytest
import stripe

from stripe_sandbox.permissions import RESOURCES
from stripe_sandbox.routes import ENDPOINTS
from tests.stripe_sandbox.rig import KEY, Sandbox

READER = "rk_test_reader0123456789"


@pytest.fixture
def reader(sandbox: Sandbox) -> stripe.StripeClient:
    """May read customers, and read and write invoices."""
    rights = ["rak_customer_read", "rak_invoice_write"]
    sandbox.control("/restricted_keys", {"key": READER, "permissions": rights})
    return sandbox.client(READER)


def test_every_resource_has_a_right_of_its_own():
    assert {each.path.split("/")[2] for each in ENDPOINTS} == set(RESOURCES)


def test_what_is_given_may_be_done_and_writing_includes_reading(reader):
    assert reader.v1.customers.list({"limit": 1}).object == "list"
    assert reader.v1.invoices.list({"limit": 1}).object == "list"


@pytest.mark.parametrize(
    ("call", "right"),
    [
        (lambda client: client.v1.customers.create({}), "rak_customer_write"),
        (lambda client: client.v1.events.list(), "rak_event_read"),
        (lambda client: client.v1.refunds.list(), "rak_charge_read"),
        (lambda client: client.v1.accounts.retrieve_current(), "rak_accounts_kyc_basic_read"),
    ],
)
def test_what_is_not_given_is_refused_and_named(reader, call, right):
    with pytest.raises(stripe.PermissionError) as refused:
        call(reader)
    assert refused.value.http_status == 403
    said = str(refused.value)
    assert f"Having the '{right}' permission would allow this request to continue." in said
    assert READER not in said
    assert "on account 'acct_sandbox'" in said


def test_a_key_nobody_restricted_may_do_everything(sandbox: Sandbox):
    account = sandbox.client("rk_test_other0123456789").v1.accounts.retrieve_current()
    assert (account.id, account.charges_enabled) == ("acct_sandbox", True)


def test_only_known_rights_of_restricted_keys_are_taken(sandbox: Sandbox):
    for body in (
        {"key": KEY, "permissions": []},
        {"key": READER, "permissions": ["rak_everything_write"]},
        {"key": READER, "permissions": [7]},
        {"permissions": []},
    ):
        with pytest.raises(AssertionError, match="error"):
            sandbox.control("/restricted_keys", body)


def test_a_restricted_key_is_taken_beside_the_only_one(own_sandbox):
    alone = own_sandbox("--key", KEY)
    with pytest.raises(stripe.AuthenticationError):
        alone.client(READER).v1.customers.list()
    alone.control("/restricted_keys", {"key": READER, "permissions": ["rak_customer_read"]})
    assert alone.client(READER).v1.customers.list().data == []
