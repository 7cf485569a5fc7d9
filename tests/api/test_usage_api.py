"""Usage over the control API: one table as JSON and CSV, of one organisation or of all."""

import csv
import io
from datetime import UTC, datetime

import pytest
from rest_framework.test import APIClient

from meterplane.kernel import clock
from meterplane.metering.ingest import ingest_segment
from tenants.keys import issue_operator_key
from tests.metering.segments import message, settle

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("third_of_november")]

AT = datetime(2026, 11, 2, 23, 30, tzinfo=UTC)


@pytest.fixture
def third_of_november():
    with clock.frozen(datetime(2026, 11, 3, 15, 20, tzinfo=UTC)):
        yield


@pytest.fixture
def operator(db) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issue_operator_key('tests')}")
    return client


@pytest.fixture
def used(organisation, onboard):
    """Three requests of acme, two with a tag, and one of globex."""
    globex = onboard("globex")
    at_ms = clock.to_ms(AT)
    frames = [
        settle(organisation, at_ms=at_ms, tags={"team": "=ads"}),
        settle(organisation, at_ms=at_ms, tags={"team": "=ads"}, model="identity", status="error"),
        settle(organisation, at_ms=at_ms),
        settle(globex, at_ms=at_ms, cost_nano=1),
    ]
    ingest_segment(message(frames))
    return frames


def test_usage_of_all_organisations_is_one_table(operator, used):
    answer = operator.get(
        "/api/v1/usage?group_by=organisation,model&bucket=day&tz=Europe/Berlin&from=2026-11-01"
    ).json()
    assert sorted(answer["rows"], key=lambda row: (row["organisation"], row["model"])) == [
        {
            "at": "2026-11-03T00:00:00+01:00",
            "organisation": slug,
            "model": model,
            "currency": "USD",
            "events": events,
            "events_ok": ok,
            "requests": events,
            "tokens_in": 10 * events,
            "tokens_out": 20 * events,
            "cost": cost,
            "mean_ms": 40,
        }
        for slug, model, events, ok, cost in (
            ("acme", "identity", 1, 0, "0.0000135"),
            ("acme", "tiny-lm", 2, 2, "0.000027"),
            ("globex", "tiny-lm", 1, 1, "0.000000001"),
        )
    ]
    assert [(row["events"], row["cost"]) for row in answer["totals"]] == [(4, "0.000040501")]
    assert (answer["from"], answer["truncated"]) == ("2026-11-01T00:00:00+01:00", False)
    assert answer["source"] == ["usage_hour", "usage_event"]


def test_an_organisation_is_filtered_by_its_slug(operator, used):
    rows = operator.get("/api/v1/usage?organisation=acme&group_by=organisation").json()["rows"]
    assert [(row["organisation"], row["events"]) for row in rows] == [("acme", 3)]
    both = operator.get("/api/v1/usage?organisation=acme&organisation=globex").json()["totals"]
    assert both[0]["events"] == 4
    missing = operator.get("/api/v1/usage?organisation=nobody")
    assert (missing.status_code, missing.json()["code"]) == (404, "organisation_not_found")


@pytest.mark.parametrize(
    ("query", "accept"), [("&format=csv", "*/*"), ("", "text/csv"), ("&format=csv", "text/csv")]
)
def test_csv_has_the_rows_of_the_json(operator, used, query, accept):
    path = "/api/v1/usage?group_by=tag:team,model&order=name&limit=2"
    answer = operator.get(path).json()
    download = operator.get(path + query, HTTP_ACCEPT=accept)
    assert download["Content-Type"] == "text/csv; charset=utf-8"
    assert download["x-meterplane-truncated"] == str(answer["truncated"]).lower() == "true"
    rows = list(csv.DictReader(io.StringIO(download.content.decode())))
    as_written = [
        {name: "'=ads" if value == "=ads" else str(value) for name, value in row.items()}
        for row in answer["rows"]
    ]
    assert rows == as_written
    assert len(rows) == 2


def test_a_problem_is_json_whatever_was_asked_for(operator, used):
    for path in ("/api/v1/usage?colour=red", "/api/v1/organisations/acme/usage?colour=red"):
        refused = operator.get(path + "&format=csv")
        assert (refused.status_code, refused["Content-Type"]) == (400, "application/problem+json")
        assert refused.json()["field"] == "colour"
        assert "service_tier" in refused.json()["detail"]


def test_the_lists_of_an_organisation_take_the_filters_of_usage(operator, used):
    rows = operator.get("/api/v1/organisations/acme/usage?model=tiny-lm&last=7d").json()
    assert [(row["model"], row["service_tier"], row["events"]) for row in rows] == [
        ("tiny-lm", "standard", 2)
    ]
    assert rows[0]["price_version_id"] == str(used[0].price_version_id)
    by_tag = operator.get("/api/v1/organisations/acme/usage/by/tag:team?start=2026-11-01").json()
    assert [(row["group"], row["events"], row["cost"]) for row in by_tag] == [
        ("=ads", 2, "0.000027"),
        ("", 1, "0.0000135"),
    ]
    download = operator.get("/api/v1/organisations/acme/usage/by/status?format=csv")
    assert download.content.decode().splitlines()[0].startswith("status,currency,events")
    shaped = operator.get("/api/v1/organisations/acme/usage/by/model?bucket=day")
    assert (shaped.status_code, shaped.json()["field"]) == (400, "bucket")
    assert "/api/v1/usage?organisation=acme" in shaped.json()["detail"]


def test_a_table_of_one_organisation_is_read_through_its_door(operator, used):
    """Whatever a filter says: the rows of others are not even readable then."""
    rows = operator.get("/api/v1/usage?organisation=globex&group_by=key").json()["rows"]
    assert [row["key"] for row in rows] == [str(used[3].key_id)]
