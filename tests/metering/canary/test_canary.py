"""The canary sends known requests through everything, and says so when anything is lost."""

from datetime import timedelta

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from billing.invoicing.close import close_period
from meterplane.kernel import clock
from meterplane.metering.canary import chain, run, tenant
from meterplane.metering.models import CanaryRun, UsageEvent
from tenants.models import ApiKey
from tenants.onboard import create_organisation
from tenants.queries import organisation_by_slug
from tenants.scoping import system_scope, tenant_scope
from tenants.synthetic import CANARY_SLUG
from tests.gateway.conftest import *  # noqa: F403  its gateways, and what they sell
from tests.metering.through_the_gateway import measured, shipped

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def canary_of(triton, start_gateway, selling, settings):
    """A gateway that the canary asks."""
    gateway = start_gateway(triton.http_url)
    settings.PUBLIC_GATEWAY_URL = gateway.url
    settings.TRITON_METRICS = [measured(triton)]
    return gateway


def steps_of(done: CanaryRun) -> dict[str, bool]:
    return {step["name"]: step["passed"] for step in done.steps}


def test_it_passes_through_everything_twice_and_is_never_invoiced(canary_of, capsys, monkeypatch):
    with shipped(canary_of.journal):
        call_command("canary")
        done = run.run_canary()
    assert capsys.readouterr().out.count("ok    ") >= 4
    assert done.passed, done.steps
    assert {"answers", "events", "roll-ups", "Triton"} <= set(steps_of(done))
    assert 0 < done.visible_after_ms < 30_000
    with system_scope("test"):
        canary = organisation_by_slug(CANARY_SLUG)
        assert CanaryRun.objects.filter(passed=True).count() == 2
    with tenant_scope(canary.id):
        events = list(UsageEvent.objects.order_by("model"))
        [key] = ApiKey.objects.all()  # the same one, with another secret each time
    assert {event.model for event in events} == {"tiny-lm", "identity", "all-minilm-l6-v2"}
    assert len(events) == 6
    assert key.status == "revoked"
    assert sum(event.cost_nano for event in events) > 0
    assert close_period(canary.id, clock.now()) is None

    # Metering that loses, or adds, a token is found out.
    monkeypatch.setattr(chain, "VISIBLE_WITHIN_S", 5.0)
    monkeypatch.setattr(chain, "COUNTED_WITHIN_S", 0.2)
    broken = run.run_canary()  # nobody ships
    assert broken.passed is False
    assert steps_of(broken) == {
        "answers": True, "events": False, "roll-ups": True, **(
            {"receipts": False} if "receipts" in steps_of(broken) else {}
        )
    }  # fmt: skip
    with pytest.raises(CommandError, match="broken"):
        call_command("canary")


def test_roll_ups_that_grew_by_something_else_are_told(organisation):
    from meterplane.metering.ingest import ingest_segment
    from tests.metering.segments import message, settle

    canary = tenant.Canary(organisation.id, organisation.key_id, "")
    before = chain.stand(canary)
    sent = settle(organisation)
    ingest_segment(message([sent]))
    with tenant_scope(organisation.id):
        events = {event.request_id: event for event in UsageEvent.objects.all()}
    assert chain.faults_of_roll_ups(canary, before, events) == []
    ingest_segment(message([settle(organisation)]))
    told = chain.faults_of_roll_ups(canary, before, events)
    assert len(told) == 2
    assert "usage_hour of tiny-lm is (2," in told[0]
    answer = run.Answered("tiny-lm", sent.request_id, 10, 21, 0.0)
    assert "(tokens" not in str(told)
    [fault] = chain.faults_of_events([answer], events)
    assert str(sent.request_id) in fault


def test_a_gateway_that_is_away_is_told_and_the_key_is_void(selling, settings, redis_url):
    settings.PUBLIC_GATEWAY_URL = "http://127.0.0.1:9"
    settings.TRITON_METRICS = []
    done = run.run_canary()
    assert done.passed is False
    assert "was not answered" in done.steps[0]["said"]
    with system_scope("test"):
        canary = organisation_by_slug(CANARY_SLUG)
    with tenant_scope(canary.id):
        assert ApiKey.objects.get().status == "revoked"


def test_one_run_at_a_time_and_a_dead_one_is_closed(selling, settings, redis_url):
    settings.PUBLIC_GATEWAY_URL = "http://127.0.0.1:9"
    with system_scope("test"):
        other = CanaryRun.objects.create()
    assert run.run_canary() is None
    with system_scope("test"):
        CanaryRun.objects.filter(id=other.id).update(
            started_at=clock.now() - run.DEAD_AFTER - timedelta(seconds=1)
        )
    assert run.run_canary() is not None
    with system_scope("test"):
        other.refresh_from_db()
    assert other.passed is False
    assert "died" in other.steps[0]["said"]


def test_its_slug_is_nobody_elses(db):
    from meterplane.kernel.errors import CallerError

    with pytest.raises(CallerError, match="installation's own"):
        create_organisation(
            slug=CANARY_SLUG, name="x", owner_email="a@b.example", owner_password="x" * 12
        )
