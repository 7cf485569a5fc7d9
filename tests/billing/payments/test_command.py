"""`manage.py close-period`: says what it did, and fails with a sentence."""

import io
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command

from billing.invoicing.close import close_period
from billing.payments.accounts import attach_test_card
from billing.payments.collect import collect
from billing.payments.management.commands import close_period as command
from billing.payments.models import PaymentRun
from billing.payments.run import LEASE
from meterplane.kernel import clock
from tenants.scoping import tenant_scope
from tests.billing.payments.rig import Faulty, Killed, read, standing
from tests.billing.world import ingest, used, utc

pytestmark = pytest.mark.django_db(transaction=True)


def run(**options: object) -> str:
    out = io.StringIO()
    call_command("close_period", stdout=out, **options)
    return out.getvalue()


@pytest.fixture
def usage(organisation, prices):
    at = clock.now() - timedelta(milliseconds=5)
    ingest(used(organisation, prices, at, "tiny-lm", tokens_in=1_000_000, tokens_out=50))
    return organisation


def test_now_closes_shows_collects_and_names_the_page(usage, stripe):
    attach_test_card(usage.id, stripe)
    said = run(org="acme", now=True)
    assert "Acme: " in said
    assert "1,000,000 x 0.000002" in said
    assert "2.00" in said
    assert "2.01 USD" in said  # 2.00 + 0.0003 + 0.01
    assert "collecting ..." in said
    assert "invoice ACME-000001 is paid" in said
    assert said.rstrip().splitlines()[-1].startswith("http://127.0.0.1:")
    assert "nothing used" in run(org="acme", now=True)


def test_a_declined_card_is_an_error_that_says_so(usage, stripe):
    attach_test_card(usage.id, stripe, "pm_card_chargeCustomerFail")
    with pytest.raises(CommandError, match="The charge was declined"):
        run(org="acme", now=True)
    assert standing(usage.id) == "past_due"


def test_stripe_away_is_an_error_that_says_so_and_loses_nothing(usage, settings, stripe):
    away, settings.STRIPE_API_BASE = settings.STRIPE_API_BASE, "http://127.0.0.1:9"
    with pytest.raises(CommandError, match="acme: "):
        run(org="acme", now=True)
    settings.STRIPE_API_BASE = away
    attach_test_card(usage.id, stripe)
    assert "is paid" in run(org="acme", now=True)


def test_until_a_day_makes_the_invoice_and_leaves_collecting_to_the_worker(
    acme, prices, late_november
):
    ingest(used(acme, prices, utc(10, 5)))
    said = run(org="acme", until="2026-11-01")
    assert "2026-10-01 00:00 to 2026-11-01 00:00 UTC" in said
    assert "collecting" not in said
    assert "tiny-lm" in run(all=True, until="2026-11-01")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"org": "nobody", "now": True}, "no organisation 'nobody'"),
        ({"org": "acme", "until": "soon"}, "not a day"),
        ({"org": "acme", "until": "2099-01-01"}, "not beyond"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(organisation, options, said):
    with pytest.raises(CommandError, match=said):
        run(**options)


def test_a_run_held_by_a_worker_that_hangs_is_told(usage, stripe, monkeypatch):
    monkeypatch.setattr(command, "COLLECTED_WITHIN_S", 0.3)
    monkeypatch.setattr(command, "POLL_S", 0.1)
    invoice = close_period(usage.id, clock.now())
    assert invoice is not None
    with pytest.raises(Killed):
        collect(usage.id, invoice.id, Faulty(stripe, 2, after=True, fail=Killed))
    with tenant_scope(usage.id):
        PaymentRun.objects.update(lease_token=usage.id, lease_until=clock.now() + LEASE)
    with pytest.raises(CommandError, match="another worker holds"):
        run(org="acme", now=True)
    assert read(usage.id, invoice).status == "finalising"
