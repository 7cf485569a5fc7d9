"""The sandbox learns where events go, once per address; a real Stripe is told by its owner."""

import dataclasses
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from meterplane.stack import installation, probes, servers, webhook
from meterplane.stack.component import NotStarted
from meterplane.stack.layout import Layout
from meterplane.stack.ports import OFFSETS, Ports
from meterplane.stack.servers import Servers
from tests.conftest import ROOT, free_port, wait_until
from tests.stripe_schema import recording

PORTS = Ports({name: 8700 + offset for name, offset in OFFSETS.items()}, {})


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


@pytest.fixture
def located(layout: Layout) -> Iterator[Servers]:
    """A stack's addresses, with a running sandbox."""
    key = installation.load(layout).stripe_api_key
    port = free_port()
    process = subprocess.Popen(
        recording.command(layout.sandbox, "--port", str(port), "--key", key), cwd=ROOT
    )
    try:
        base = f"http://127.0.0.1:{port}"
        wait_until(lambda: probes.http_status(f"{base}/healthz") == 200, "the sandbox answering")
        given = {"STRIPE_API_BASE": base, "STRIPE_API_KEY": key}
        yield servers.locate(layout, PORTS, installation.load(layout), given)
    finally:
        process.terminate()
        process.wait(30)


def endpoints(located: Servers) -> list[str]:
    listed = webhook._call(located, "GET", "/v1/webhook_endpoints?limit=100")
    return [each["url"] for each in listed["data"]]


def test_an_endpoint_is_made_once_and_its_secret_kept(layout: Layout, located: Servers):
    webhook.register(layout, located)
    first = installation.load(layout).stripe_webhook_secret
    assert first.startswith("whsec_")
    webhook.register(layout, located)
    assert installation.load(layout).stripe_webhook_secret == first
    assert endpoints(located) == ["http://127.0.0.1:8700/webhooks/stripe"]


def test_a_portal_that_moved_gets_a_new_endpoint_in_place_of_the_old(
    layout: Layout, located: Servers
):
    webhook.register(layout, located)
    first = installation.load(layout).stripe_webhook_secret
    moved = dataclasses.replace(located, web_url="http://127.0.0.1:9700")
    webhook.register(layout, moved)
    assert endpoints(located) == ["http://127.0.0.1:9700/webhooks/stripe"]
    assert installation.load(layout).stripe_webhook_secret != first


def test_a_stripe_elsewhere_needs_its_secret_from_its_owner(layout: Layout):
    secrets = installation.load(layout)
    given = {"STRIPE_API_BASE": "https://stripe.example", "STRIPE_API_KEY": "sk_test_1"}
    with pytest.raises(NotStarted, match="STRIPE_WEBHOOK_SECRET"):
        webhook.register(layout, servers.locate(layout, PORTS, secrets, given))
    known = given | {"STRIPE_WEBHOOK_SECRET": "whsec_1"}
    webhook.register(layout, servers.locate(layout, PORTS, secrets, known))
    assert msgspec.json.decode(layout.secrets.read_bytes())["stripe_webhook_secret"] == ""
