"""Webhooks: only authentic ones count, each once, and only as a hint to look for ourselves."""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import stripe as sdk
from django.test import Client
from pytest_django.fixtures import Settings

from billing.payments import tasks
from billing.payments.accounts import attach_test_card
from billing.payments.collect import collect
from billing.payments.models import PaymentRun, WebhookEvent
from billing.payments.process import process_event
from billing.payments.stripe import API_VERSION, Stripe
from meterplane.kernel import clock
from tenants.scoping import system_scope, tenant_scope
from tenants.standing import set_standing
from tests.billing.payments.rig import Faulty, Killed, read, standing
from tests.stripe_sandbox.rig import Receiver, until

pytestmark = pytest.mark.django_db(transaction=True)

URL = "/webhooks/stripe"
SECRET = "whsec_" + "s" * 32
DECLINING = "pm_card_chargeCustomerFail"


@pytest.fixture(autouse=True)
def secrets(settings: Settings) -> None:
    """One signing secret, unless a test makes its own endpoint."""
    settings.STRIPE_WEBHOOK_SECRETS = [SECRET]


@pytest.fixture
def delivered(stripe: Stripe, there, settings: Settings) -> Iterator[Receiver]:
    """What the sandbox really sends, kept to be handed to our view in any order."""
    receiver = Receiver()
    stop = receiver.start()
    secret = stripe.ensure_webhook_endpoint(receiver.url, renew=False)
    assert secret is not None
    settings.STRIPE_WEBHOOK_SECRETS = [SECRET, secret]
    yield receiver
    for endpoint in there.client.v1.webhook_endpoints.list({"limit": 100}).data:
        if endpoint.url == receiver.url:
            there.client.v1.webhook_endpoints.delete(endpoint.id)
    stop()


def post(body: bytes, signature: str | None) -> int:
    headers = {"Stripe-Signature": signature} if signature is not None else {}
    return Client().post(URL, body, content_type="application/json", headers=headers).status_code


def signed(event: dict[str, Any], secret: str = SECRET, age_s: int = 0) -> tuple[bytes, str]:
    body = json.dumps(event)
    at = clock.now_ms() // 1000 - age_s
    header = sdk.WebhookSignature.generate_signature_header(body, secret, at)
    return body.encode(), header


def event(their_id: str = "in_unknown", **changes: Any) -> dict[str, Any]:
    return {
        "id": "evt_1",
        "object": "event",
        "type": "invoice.paid",
        "api_version": API_VERSION,
        "livemode": False,
        "data": {"object": {"object": "invoice", "id": their_id, "status": "paid"}},
    } | changes


def stored() -> list[str]:
    with system_scope("test"):
        return list(WebhookEvent.objects.order_by("event_id").values_list("event_id", flat=True))


def test_events_the_sandbox_sends_move_invoice_and_standing(
    organisation, billed, stripe, there, delivered
):
    attach_test_card(organisation.id, stripe, DECLINING)
    invoice = billed(organisation)
    collect(organisation.id, invoice.id, stripe)
    assert standing(organisation.id) == "past_due"
    until(lambda: "invoice.payment_failed" in delivered.types(), "the failure told")
    attach_test_card(organisation.id, stripe)
    [theirs] = there.invoices(organisation)
    there.client.v1.invoices.pay(theirs.id)  # as the customer does on the hosted page
    until(lambda: "invoice.paid" in delivered.types(), "the payment told")
    assert read(organisation.id, invoice).status == "open"
    for body, signature in list(delivered.got):
        assert post(body, signature) == 200
    tasks.sweep()
    ours = read(organisation.id, invoice)
    assert (ours.status, ours.collection_state, ours.collection_note) == ("paid", "done", "")
    assert standing(organisation.id) == "active"
    with system_scope("test"):
        assert not WebhookEvent.objects.filter(processed_at__isnull=True).exists()


def test_events_in_any_order_any_number_and_with_some_missing_end_the_same(
    onboard, billed, stripe, there, delivered
):
    for seed in range(4):
        chance = random.Random(seed)
        tenant = onboard(f"tenant-{seed}")
        delivered.got.clear()
        attach_test_card(tenant.id, stripe, DECLINING)
        invoice = billed(tenant)
        collect(tenant.id, invoice.id, stripe)
        attach_test_card(tenant.id, stripe)
        [theirs] = there.invoices(tenant)
        there.client.v1.invoices.pay(theirs.id)
        until(lambda: "invoice.paid" in delivered.types(), "the payment told")
        arriving = [pair for pair in delivered.got for _ in range(chance.randrange(3))]
        arriving.append(next(p for p in delivered.got if b'"invoice.paid"' in p[0]))
        chance.shuffle(arriving)
        for body, signature in arriving:
            assert post(body, signature) == 200
            process_event(json.loads(body)["id"], stripe)
        assert read(tenant.id, invoice).status == "paid", f"seed {seed}"
        assert standing(tenant.id) == "active", f"seed {seed}"


def test_a_duplicate_is_answered_and_stored_once():
    body, signature = signed(event())
    assert [post(body, signature) for _ in range(3)] == [200, 200, 200]
    assert stored() == ["evt_1"]


def test_either_of_two_secrets_is_good_while_one_replaces_the_other(settings: Settings):
    other = "whsec_" + "o" * 32
    settings.STRIPE_WEBHOOK_SECRETS = [other, SECRET]
    assert post(*signed(event(id="evt_1"))) == 200
    assert post(*signed(event(id="evt_2"), other)) == 200
    assert stored() == ["evt_1", "evt_2"]


FORGERIES: dict[str, Callable[[], tuple[bytes, str | None]]] = {
    "no signature": lambda: (signed(event())[0], None),
    "no header": lambda: (signed(event())[0], ""),
    "nonsense": lambda: (signed(event())[0], "t=x,v1=y"),
    "another secret": lambda: signed(event(), "whsec_" + "x" * 32),
    "an empty secret": lambda: signed(event(), ""),
    "another body": lambda: (signed(event(id="evt_2"))[0], signed(event())[1]),
    "re-encoded": lambda: (signed(event())[0].replace(b", ", b","), signed(event())[1]),
    "six minutes old": lambda: signed(event(), age_s=360),
    "another scheme": lambda: (signed(event())[0], signed(event())[1].replace("v1=", "v0=")),
    "another version": lambda: signed(event(api_version="2023-08-16")),
    "no version": lambda: signed(event(api_version=None)),
    "a connected account": lambda: signed(event(account="acct_other")),
    "live mode": lambda: signed(event(livemode=True)),
    "no id": lambda: signed(event(id="")),
    "not an object": lambda: signed([]),  # type: ignore[arg-type]
    "data is a list": lambda: signed(event(data=[])),
    "data is a text": lambda: signed(event(data="x")),
    "its object is a text": lambda: signed(event(data={"object": "x"})),
    "a thin event": lambda: signed({"id": "evt_1", "object": "v2.core.event"}),
    "not UTF-8": lambda: (b"\xff\xfe", signed(event())[1]),
    "a zero character": lambda: signed(event(note="a\0b")),
    "too large": lambda: signed(event(padding="x" * 600_000)),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_what_is_not_authentic_is_refused_and_leaves_nothing(forgery):
    assert post(*FORGERIES[forgery]()) == 400
    assert stored() == []


def test_events_of_this_account_may_name_it(settings: Settings):
    settings.STRIPE_ACCOUNT_ID = "acct_ours"
    assert post(*signed(event(account="acct_ours"))) == 200
    assert post(*signed(event(id="evt_2", account="acct_other"))) == 400
    assert post(*signed(event(id="evt_3", account=""))) == 400
    assert stored() == ["evt_1"]


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_short", "s" * 40])
def test_without_a_real_secret_nothing_is_believed(settings: Settings, secret):
    settings.STRIPE_WEBHOOK_SECRETS = [secret] if secret else []
    assert post(*signed(event(), secret)) == 400
    assert stored() == []


def test_only_posts_are_answered():
    assert Client().get(URL).status_code == 405


def test_what_an_event_claims_is_not_believed(organisation, billed, stripe, there):
    """Authentic, but Stripe says otherwise when asked."""
    invoice = billed(organisation)
    collect(organisation.id, invoice.id, stripe)  # no card: open
    [theirs] = there.invoices(organisation)
    assert post(*signed(event(theirs.id))) == 200
    assert process_event("evt_1", stripe) == "open, as known"
    assert read(organisation.id, invoice).status == "open"


def test_an_event_about_anything_else_changes_nothing(stripe):
    assert post(*signed(event())) == 200
    assert process_event("evt_1", stripe) == "not an invoice of ours"
    about = {"object": {"object": "product", "id": "prod_1"}}
    assert post(*signed(event(id="evt_2", data=about))) == 200
    assert process_event("evt_2", stripe) == "nothing is done for product"


def test_an_invoice_of_another_amount_or_owner_parks_ours(organisation, billed, stripe, there):
    ours, another = billed(organisation), billed(organisation)
    collect(organisation.id, another.id, stripe)  # no card yet: open
    attach_test_card(organisation.id, stripe)
    collect(organisation.id, ours.id, stripe)
    with tenant_scope(organisation.id):
        first = PaymentRun.objects.get(invoice_id=ours.id)
        PaymentRun.objects.filter(id=first.id).update(provider_invoice_id=None)
        PaymentRun.objects.filter(invoice_id=another.id).update(
            provider_invoice_id=first.provider_invoice_id
        )
    assert post(*signed(event(str(first.provider_invoice_id)))) == 200
    process_event("evt_1", stripe)
    parked = read(organisation.id, another)
    assert (parked.status, parked.collection_state) == ("open", "parked")
    assert f"invoice: ours {another.id}, theirs {ours.id}" in parked.collection_note


def test_an_event_waits_while_the_provider_is_away(organisation, billed, stripe, there):
    attach_test_card(organisation.id, stripe, DECLINING)
    invoice = billed(organisation)
    collect(organisation.id, invoice.id, stripe)
    attach_test_card(organisation.id, stripe)
    [theirs] = there.invoices(organisation)
    there.client.v1.invoices.pay(theirs.id)
    assert post(*signed(event(theirs.id))) == 200
    for after in (False, True):
        with pytest.raises(Killed):
            process_event("evt_1", Faulty(stripe, 1, after=after, fail=Killed))
        assert read(organisation.id, invoice).status == "open"
    assert process_event("evt_1", stripe) == "paid"
    assert process_event("evt_1", Faulty(stripe, 1, after=False, fail=Killed)) == "paid"
    assert read(organisation.id, invoice).status == "paid"


def test_a_suspension_is_not_lifted_by_a_payment(organisation, billed, stripe):
    set_standing(tenant_id=organisation.id, standing="suspended", reason="abuse")
    attach_test_card(organisation.id, stripe)
    collect(organisation.id, billed(organisation).id, stripe)
    assert standing(organisation.id) == "suspended"


def test_the_inbox_is_the_systems_alone(organisation):
    assert post(*signed(event())) == 200
    with tenant_scope(organisation.id):
        assert not WebhookEvent.objects.exists()
    assert not WebhookEvent.objects.exists()
    assert stored() == ["evt_1"]
