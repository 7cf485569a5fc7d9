"""Destinations and schedules of exports: entered, refused in words, tested, and how they went."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from meterplane.kernel import clock
from meterplane.metering.models import ExportDelivery, ExportDestination, ExportSchedule
from tenants.scoping import system_scope
from tests.conftest import free_port

pytestmark = pytest.mark.django_db
DESTINATIONS = "/console/metering/exportdestination/"
SCHEDULES = "/console/metering/exportschedule/"
NOW = datetime(2026, 11, 3, 12, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def noon():
    with clock.frozen(NOW):
        yield


@pytest.fixture
def destination(operator):
    assert operator.post(f"{DESTINATIONS}add/", bucket()).status_code == 302
    with system_scope("test"):
        return ExportDestination.objects.get()


def bucket(**changes):
    return {
        "name": "warehouse", "endpoint": f"http://127.0.0.1:{free_port()}", "region": "us-east-1",
        "bucket": "usage", "prefix": "exports", "path_style": "on", "access_key_id": "AKIA1",
        "secret": "a-secret-nobody-sees", "secret_env": "",
    } | changes  # fmt: skip


def schedule(destination, **changes):
    return {
        "name": "all-events", "destination": str(destination.id), "organisation": "",
        "kind": "events", "format": "parquet", "every": "daily", "filters": "{}", "is_active": "on",
        "next_period_0": "2026-11-01", "next_period_1": "10:00:00",
    } | changes  # fmt: skip


def test_a_secret_is_entered_sealed_kept_and_never_shown(operator, destination):
    assert "a-secret" not in destination.secret_sealed
    page = f"{DESTINATIONS}{destination.id}/change/"
    assert "a-secret" not in operator.get(page).content.decode()
    assert destination.secret_sealed not in operator.get(page).content.decode()
    assert operator.post(page, bucket(secret="", region="eu-1")).status_code == 302
    with system_scope("test"):
        kept = ExportDestination.objects.get()
    assert (kept.region, kept.secret_sealed) == ("eu-1", destination.secret_sealed)


def test_what_cannot_be_is_said_beside_its_field_and_nothing_is_stored(operator):
    for wrong, words in (
        ({"endpoint": "http://169.254.169.254"}, "link-local"),
        ({"bucket": "No Bucket"}, "lower-case letters"),
        ({"secret": ""}, "Give the secret of the access key"),
        ({"secret_env": "EXPORT_SECRET"}, "not both"),
    ):
        answer = operator.post(f"{DESTINATIONS}add/", bucket(**wrong))
        assert answer.status_code == 200
        assert words in answer.content.decode()
    with system_scope("test"):
        assert not ExportDestination.objects.exists()


def test_a_connection_is_tested_and_the_fault_said(operator, destination):
    action = {"action": "test_connections", "_selected_action": [str(destination.id)]}
    page = operator.post(DESTINATIONS, action, follow=True).content.decode()
    assert "cannot be reached" in page


def test_a_schedule_says_its_last_run_its_next_and_its_error(operator, destination, organisation):
    tenant = str(organisation.id)
    answer = operator.post(f"{SCHEDULES}add/", schedule(destination, organisation=tenant))
    assert answer.status_code == 302
    with system_scope("test"):
        row = ExportSchedule.objects.get()
        assert row.next_period == datetime(2026, 11, 1, tzinfo=UTC)
        assert (row.tenant_id, row.kind, row.format) == (organisation.id, "events", "parquet")
        page = operator.get(SCHEDULES).content.decode()
        assert "2026-11-02 00:10:00" in page
        start = row.next_period
        ExportDelivery.objects.create(
            schedule_id=row.id, period_start=start, period_end=start + timedelta(days=1),
            error="There is no bucket 'usage'.", try_at=NOW + timedelta(minutes=4),
        )  # fmt: skip
        ExportDelivery.objects.create(
            schedule_id=row.id, period_start=start - timedelta(days=1), period_end=start,
            state="delivered", revision=2, rows=1234, sha256="0" * 64, object_key="a/b.parquet",
            try_at=NOW, delivered_at=NOW - timedelta(hours=3),
        )  # fmt: skip
    page = operator.get(SCHEDULES).content.decode()
    for words in ("2026-11-03 09:30:00", "2026-11-03 12:34:00", "There is no bucket", "failing"):
        assert words in page
    page = operator.get(f"{SCHEDULES}{row.id}/change/").content.decode()
    assert "revision 2, 1,234 rows" in page


def test_a_schedule_that_cannot_be_is_refused(operator, destination):
    assert operator.post(f"{SCHEDULES}add/", schedule(destination)).status_code == 302
    for wrong, words in (
        ({"name": "With Space"}, "part of object keys"),
        ({}, "sends to the same keys"),
        ({"name": "b", "filters": json.dumps({"colour": "red"})}, "is no parameter here"),
        ({"name": "b", "filters": json.dumps({"from": "2026-11-01"})}, "say nothing of the period"),
    ):
        answer = operator.post(f"{SCHEDULES}add/", schedule(destination, **wrong))
        assert answer.status_code == 200
        assert words in answer.content.decode()


def test_a_destination_in_use_stays(operator, destination):
    operator.post(f"{SCHEDULES}add/", schedule(destination))
    gone = operator.post(f"{DESTINATIONS}{destination.id}/delete/", {"post": "yes"})
    assert gone.status_code == 403
    with system_scope("test"):
        row = ExportSchedule.objects.get()
    assert operator.post(f"{SCHEDULES}{row.id}/delete/", {"post": "yes"}).status_code == 302
    gone = operator.post(f"{DESTINATIONS}{destination.id}/delete/", {"post": "yes"})
    assert gone.status_code == 302
