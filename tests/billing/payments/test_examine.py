"""A Stripe account is looked at by reading alone; what is not well comes with what to do."""

import inspect
import re
import socket
import time
import typing
from secrets import token_hex

import pytest
import stripe as sdk
from stripe.params import _webhook_endpoint_create_params

from billing.payments.correction_events import HEARD
from billing.payments.heard import MONEY_IN
from billing.payments.process import ACTS, EVENTS_NEEDED
from billing.payments.stripe import examine as examining
from billing.payments.stripe.examine import RESOURCES, Wanted, examine
from billing.payments.stripe_settings import API_VERSION
from meterplane.kernel import clock
from meterplane.kernel.finding import Finding
from tests.billing.world import utc
from tests.conftest import free_port
from tests.stripe_sandbox.rig import KEY, Sandbox

WANTED = Wanted("http://127.0.0.1:8700/webhooks/stripe")
FINE = {"id": "we_1", "url": WANTED.webhook_url, "status": "enabled",
        "api_version": API_VERSION, "enabled_events": ["*"]}  # fmt: skip


@pytest.fixture(scope="module")
def account(tmp_path_factory) -> typing.Iterator[Sandbox]:
    """One with an endpoint as we want it, and nobody else's."""
    running = Sandbox(tmp_path_factory.mktemp("account") / "stripe.sqlite3").start()
    there = running.client().v1
    there.webhook_endpoints.create(
        {"url": WANTED.webhook_url, "enabled_events": ["*"], "api_version": API_VERSION}
    )
    there.billing_portal.configurations.list()  # the default one, which is made when asked for
    yield running
    running.stop()


def seen(sandbox: Sandbox, key: str = KEY, wanted: Wanted = WANTED) -> dict[str, Finding]:
    return {each.subject: each for each in examine(key, sandbox.url, wanted)}


def not_well(found: dict[str, Finding]) -> dict[str, str]:
    return {each.subject: each.verdict for each in found.values() if each.verdict != "ok"}


def test_an_account_as_we_want_it_is_well_and_nothing_is_changed_there(account):
    before = account.control("", method="GET")["objects"]
    found = seen(account, wanted=Wanted(WANTED.webhook_url, "acct_sandbox", ("USD", "JPY")))
    assert not_well(found) == {}
    assert all(each.fix == "" for each in found.values())
    assert found["Stripe account"].saying == "acct_sandbox, as STRIPE_ACCOUNT_ID says"
    assert found["Stripe webhook"].saying.endswith(f"sends all we need, version {API_VERSION}")
    assert account.control("", method="GET")["objects"] == before


def test_a_restricted_key_is_told_every_right_that_it_lacks(account):
    key, rights = f"rk_test_{token_hex(8)}", ["rak_customer_read", "rak_webhook_read"]
    account.control("/restricted_keys", {"key": key, "permissions": rights})
    found = seen(account, key)
    assert found["Stripe key"].saying == "test mode, a restricted key"
    assert found["Stripe account"].saying.startswith("acct_sandbox"), "the refusal names it"
    assert found["Stripe charges"].verdict == "note"
    assert found["Stripe: customers"].saying == "may be read; writing takes rak_customer_write"
    lacking = [each for each in RESOURCES if each.title not in ("customers", "webhook endpoints")]
    for each in lacking:
        finding = found[f"Stripe: {each.title}"]
        assert finding.verdict == "broken"
        assert f"Give the restricted key {each.right}," in finding.fix
    assert found["Stripe webhook"].verdict == "ok", "that may be read"
    assert "Stripe portal" not in found, "that may not"


def test_a_key_with_all_the_rights_that_are_named_is_well(account):
    key = f"rk_test_{token_hex(8)}"
    rights = [each.right for each in RESOURCES] + ["rak_accounts_kyc_basic_read"]
    account.control("/restricted_keys", {"key": key, "permissions": rights})
    assert not_well(seen(account, key)) == {}


def test_another_account_than_the_one_named_is_broken(account):
    found = seen(account, wanted=Wanted(WANTED.webhook_url, "acct_other"))
    assert not_well(found) == {"Stripe account": "broken"}
    assert "the key is of acct_sandbox" in found["Stripe account"].saying


@pytest.mark.parametrize(
    ("date", "verdict", "said"),
    [
        ("Fri, 20 Nov 2026 12:00:00 GMT", "ok", "ours and Stripe's agree"),
        ("Fri, 20 Nov 2026 12:00:05 GMT", "ok", "ours and Stripe's agree"),
        ("Fri, 20 Nov 2026 12:00:06 GMT", "note", "ours is 6 s behind Stripe's"),
        ("Fri, 20 Nov 2026 11:59:00 GMT", "note", "ours is 60 s ahead of Stripe's"),
        ("Fri, 20 Nov 2026 11:58:59 GMT", "broken", "ours is 61 s ahead of Stripe's"),
        ("Fri, 20 Nov 2026 12:04:00 -0000", "broken", "ours is 240 s behind Stripe's"),
        ("", "note", "the answer does not say when it was sent"),
        ("soon", "note", "the answer does not say when it was sent"),
    ],
)
def test_clocks_that_are_apart_are_told_before_signatures_are_refused(date, verdict, said):
    with clock.frozen(utc(11, 20, 12)):
        found = examining._skew(examining._Read(200, headers={"date": date}))
    assert (found.verdict, found.saying) == (verdict, said)


def test_a_currency_whose_smallest_charge_is_unknown_is_told(account):
    found = seen(account, wanted=Wanted(WANTED.webhook_url, currencies=("USD", "ZAR")))
    assert found["Stripe minimums"].saying == "no smallest charge is known in ZAR"


def test_telemetry_that_something_switched_on_is_told(account, monkeypatch):
    monkeypatch.setattr(sdk, "enable_telemetry", True)
    assert not_well(seen(account)) == {"Stripe telemetry": "broken"}


def test_a_key_that_stripe_does_not_know_ends_it(own):
    alone = own("--key", KEY)
    [found] = examine("sk_test_another0123456789", alone.url, WANTED)
    assert (found.verdict, "does not know this key" in found.saying) == ("broken", True)


@pytest.fixture
def own(tmp_path):
    started = []

    def start(*arguments: str) -> Sandbox:
        started.append(Sandbox(tmp_path / "own.sqlite3", *arguments).start())
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.mark.parametrize(
    ("changes", "verdict", "said", "advice"),
    [
        ({}, "ok", "we_1 sends all we need", ""),
        ({"url": "http://elsewhere/webhooks/stripe"}, "broken",
         "no endpoint is for http://127.0.0.1:8700/webhooks/stripe; there: http://else", "Add"),
        ({"status": "disabled"}, "broken", "we_1 is disabled", "Enable it"),
        ({"api_version": "2023-08-16"}, "broken", "sends version 2023-08-16", "Make a new"),
        ({"api_version": None}, "note", "follows the account's version", "Make a new"),
        ({"enabled_events": ["invoice.paid", "customer.updated"]}, "broken", "lacks 25 events",
         "charge.dispute.closed, charge.dispute.created"),
    ],
)  # fmt: skip
def test_an_endpoint_is_held_to_what_we_need(changes, verdict, said, advice):
    base = "http://127.0.0.1:8703"
    found = examining._webhook([FINE | changes], WANTED.webhook_url, KEY, base)
    assert (found.verdict, said in found.saying, advice in found.fix) == (verdict, True, True), (
        found
    )


def test_two_endpoints_with_our_address_and_none_that_stripe_can_reach():
    base = "http://127.0.0.1:8703"
    twice = examining._webhook([FINE, FINE], WANTED.webhook_url, KEY, base)
    assert (twice.verdict, "2 endpoints" in twice.saying) == ("note", True)
    away = examining._webhook([], WANTED.webhook_url, KEY, "")
    assert (away.verdict, "Stripe cannot reach" in away.saying) == ("note", True)
    live = examining._webhook([], WANTED.webhook_url, "sk_live_x", "")
    assert live.verdict == "broken"


def test_every_object_that_is_acted_on_has_the_events_that_tell_of_it():
    assert set(EVENTS_NEEDED) == {*ACTS, *HEARD, *MONEY_IN}
    known = set(re.findall(r'"([a-z0-9_.]+)"', inspect.getsource(_webhook_endpoint_create_params)))
    for about, types in EVENTS_NEEDED.items():
        assert set(types) <= known
        assert all(f"{about}." in each for each in types)


def test_stripe_that_is_away_is_one_line_at_once():
    began_s = time.monotonic()
    [found] = examine(KEY, f"http://127.0.0.1:{free_port()}", WANTED)
    assert (found.subject, found.verdict) == ("Stripe", "broken")
    assert "cannot be reached" in found.saying
    assert "STRIPE_API_BASE" in found.fix
    assert time.monotonic() - began_s < 2


def test_stripe_that_never_answers_is_waited_for_so_long_and_no_longer(monkeypatch):
    monkeypatch.setattr(examining, "HURRIED", examining.Patience(1, 1, 0, ()))
    began_s = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        base = f"http://127.0.0.1:{silent.getsockname()[1]}"
        [found] = examine(KEY, base, WANTED)
    assert "cannot be reached" in found.saying
    assert time.monotonic() - began_s < 4


def test_stripe_that_is_slow_is_not_asked_for_ever(account, monkeypatch):
    monkeypatch.setattr(examining, "WITHIN_S", 0.0)
    found = seen(account)
    assert "not looked at" in found["Stripe"].saying
    assert "Stripe: invoices" not in found
    assert found["Stripe telemetry"].verdict == "ok"
