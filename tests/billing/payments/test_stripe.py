"""The adapter: configured safely or not at all, and every answer in the port's words."""

from argparse import Namespace
from datetime import timedelta
from uuid import UUID

import pytest
import stripe as sdk
from pytest_django.fixtures import Settings

from billing.payments import stripe as adapter
from billing.payments.provider import (
    CardDeclined,
    CustomerOrder,
    DraftOrder,
    LineOrder,
    ProviderNotConfigured,
    ProviderRefused,
    ProviderUnavailable,
)
from billing.payments.stripe import Stripe, client
from meterplane.kernel import clock
from tests.billing.payments import worker
from tests.billing.world import utc
from tests.stripe_sandbox.rig import KEY

LIVE = "sk_live_0123456789abcdef"
TENANT, INVOICE = UUID(int=7), UUID(int=8)


def test_the_pinned_version_is_the_installed_sdks():
    """A new major of the SDK fails here first: read its changes, then move the pin."""
    assert sdk.api_version == adapter.API_VERSION
    assert sdk.enable_telemetry is False


@pytest.mark.parametrize(
    ("key", "base", "code"),
    [
        ("", "", "stripe_key_invalid"),
        ("pk_test_0123456789abcdef", "", "stripe_key_invalid"),
        ("sk_test_", "", "stripe_key_invalid"),
        ("sk_test_0123 456789abcdef", "", "stripe_key_invalid"),
        ("whsec_0123456789abcdef", "", "stripe_key_invalid"),
        (KEY, "ftp://127.0.0.1", "stripe_base_invalid"),
        (LIVE, "http://127.0.0.1:8703", "stripe_base_invalid"),
        (LIVE, "https://localhost:8703", "stripe_base_invalid"),
        (LIVE, "http://[::1]:8703", "stripe_base_invalid"),
        (LIVE, "http://api.stripe.com", "stripe_base_invalid"),
    ],
)
def test_a_key_that_cannot_be_meant_is_refused(key, base, code):
    with pytest.raises(ProviderNotConfigured) as refused:
        Stripe(key, base)
    assert refused.value.code == code
    assert "0123" not in str(refused.value)


@pytest.mark.parametrize(
    ("key", "base", "is_live"),
    [
        (KEY, "http://127.0.0.1:8703", False),
        ("rk_test_0123456789abcdef", "https://api.stripe.com", False),
        (LIVE, "https://api.stripe.com", True),
        (LIVE, "", True),
    ],
)
def test_a_key_and_an_address_that_belong_together_are_taken(key, base, is_live):
    assert Stripe(key, base).is_live is is_live


def test_what_is_sent_is_integers_and_texts():
    stripe = Stripe(KEY, "http://127.0.0.1:9")
    line = LineOrder("uid", "tiny-lm: 1 request x $0.01 = $0.01", 1, utc(10, 1), utc(11, 1))
    assert stripe.lines_parameters([line]) == {
        "lines": [
            {
                "description": "tiny-lm: 1 request x $0.01 = $0.01",
                "amount": 1,
                "period": {"start": 1_790_812_800, "end": 1_793_491_200},
                "metadata": {"meterplane_line": "uid"},
            }
        ]
    }
    draft = stripe.draft_parameters(
        DraftOrder(INVOICE, TENANT, "cus_1", "USD", "d", "text", "https://x.example/1")
    )
    assert (draft["auto_advance"], draft["pending_invoice_items_behavior"]) == (False, "exclude")
    assert stripe.finalise_parameters() == {"auto_advance": False}


def test_each_refusal_has_its_kind(stripe, there):
    order = stripe.customer_parameters(CustomerOrder(TENANT, "Acme", "a@acme.example"))
    customer = stripe.send("customer", "", order, "kinds:1")
    assert stripe.send("customer", "", order, "kinds:1") == customer
    with pytest.raises(ProviderRefused) as reused:
        stripe.send("customer", "", {**order, "name": "Other"}, "kinds:1")
    assert reused.value.code in {"idempotency_error", "refused"}
    with pytest.raises(ProviderRefused) as missing:
        stripe.invoice("in_missing")
    assert missing.value.code == "missing"
    with pytest.raises(ProviderRefused, match="parameter"):
        stripe.send("customer", "", {"nonsense": "1"}, "kinds:2")
    with pytest.raises(CardDeclined) as declined:
        stripe.attach_test_card(customer, "pm_card_chargeDeclined")
    assert declined.value.code == "card_declined"


def test_a_key_stripe_does_not_take_is_a_matter_of_configuration(sandbox):
    wrong = Stripe(LIVE, "https://api.stripe.com")
    wrong._client = sandbox.client(key="sk_live_0123456789abcdef")
    with pytest.raises(ProviderNotConfigured):
        wrong.customer("cus_1")


def test_nobody_there_is_unavailable_after_as_many_tries_as_a_worker_was_told(monkeypatch):
    paused = []
    monkeypatch.setattr("time.sleep", paused.append)
    monkeypatch.setattr(client, "PATIENT", client.PATIENT)  # to be what it was afterwards
    for retries in (1, 0):
        worker.arrange(Namespace(later_s=0, retries=retries, account_rate=0, endpoint_rate=0))
        with pytest.raises(ProviderUnavailable):
            Stripe(KEY, "http://127.0.0.1:9").invoice("in_1")
        assert len(paused) == 1


def test_a_proxy_of_the_environment_is_not_handed_what_is_for_this_machine(stripe, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert stripe.find_customer(TENANT, clock.now() + timedelta(days=1)) is None


def test_test_cards_stay_away_from_live_accounts():
    with pytest.raises(ProviderRefused, match="live account"):
        Stripe(LIVE, "https://api.stripe.com").attach_test_card("cus_1", "pm_card_visa")


def test_what_was_made_is_found_again_over_pages(stripe):
    """More than one page of customers, then of invoices and lines."""
    since = clock.now() - timedelta(minutes=5)
    order = stripe.customer_parameters(CustomerOrder(TENANT, "Acme", "a@acme.example"))
    customer = stripe.send("customer", "", order, "pages:customer")
    for number in range(105):
        other = CustomerOrder(UUID(int=1000 + number), "Other", "o@other.example")
        stripe.send("customer", "", stripe.customer_parameters(other), f"pages:{number}")
    found = stripe.find_customer(TENANT, since)
    assert found is not None
    draft = stripe.draft_parameters(
        DraftOrder(INVOICE, TENANT, customer, "USD", "d", "text", "https://x.example/1")
    )
    invoice = stripe.send("draft", "", draft, "pages:draft")
    assert stripe.find_invoice(customer, INVOICE, since) == invoice
    assert stripe.find_invoice(customer, TENANT, since) is None
    lines = [LineOrder(str(n), f"line {n}", n, utc(10, 1), utc(11, 1)) for n in range(150)]
    stripe.send("lines", invoice, stripe.lines_parameters(lines), "pages:lines")
    assert {line.uid: line.amount_minor for line in stripe.lines(invoice)} == {
        line.uid: line.amount_minor for line in lines
    }


def test_an_endpoint_is_registered_once_and_its_secret_told_once(stripe, there):
    url = "http://127.0.0.1:9/webhooks/stripe"
    first = stripe.ensure_webhook_endpoint(url, renew=False)
    assert first is not None
    assert stripe.ensure_webhook_endpoint(url, renew=False) is None
    renewed = stripe.ensure_webhook_endpoint(url, renew=True)
    assert renewed not in (None, first)
    [endpoint] = [e for e in there.client.v1.webhook_endpoints.list().data if e.url == url]
    assert endpoint.api_version == adapter.API_VERSION
    there.client.v1.webhook_endpoints.delete(endpoint.id)


def test_the_configured_account_is_the_one_in_the_settings(settings: Settings):
    settings.STRIPE_API_KEY, settings.STRIPE_API_BASE = "", ""
    with pytest.raises(ProviderNotConfigured):
        adapter.provider()
