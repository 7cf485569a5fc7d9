"""The request log: every request by its id, pages without gap or repeat, and nobody else's."""

from datetime import timedelta
from decimal import Decimal

import pytest
from rest_framework.test import APIClient

from billing.pricing.book import ModelPrices
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from meterplane.metering.ingest import ingest_segment
from tenants.keys import issue_operator_key
from tests.billing.world import publish_prices
from tests.metering.segments import message, settle

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(db) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issue_operator_key('tests')}")
    return client


def test_pages_hold_every_request_once_the_newest_first(operator, organisation, onboard):
    now_ms = clock.now_ms()
    globex = onboard("globex")
    frames = [settle(organisation, at_ms=now_ms - n * 1000) for n in range(12)]
    theirs = settle(globex, at_ms=now_ms + 1, status="error", tags={"team": "ads"})
    ingest_segment(message([*frames, theirs]))
    seen, path = [], "/api/v1/organisations/acme/requests?limit=5"
    while path:
        page = operator.get(path).json()
        seen += [row["request_id"] for row in page["requests"]]
        cursor = page["next_cursor"]
        path = cursor and f"/api/v1/organisations/acme/requests?limit=5&cursor={cursor}"
    assert seen == [str(frame.request_id) for frame in frames]
    everybodys = operator.get("/api/v1/requests?limit=500").json()["requests"]
    assert [row["organisation"] for row in everybodys] == ["globex"] + ["acme"] * 12
    for query in ("organisation=globex", "status=error", "tag:team=ads", f"key={globex.key_id}"):
        rows = operator.get(f"/api/v1/requests?{query}").json()["requests"]
        assert [row["request_id"] for row in rows] == [str(theirs.request_id)], query
    nothing = operator.get("/api/v1/organisations/acme/requests?tag:team=ads").json()
    assert nothing == {"requests": [], "next_cursor": None}


def test_one_request_tells_everything_and_adds_up(operator, organisation):
    version = publish_prices({"tiny-lm": ModelPrices(2_000_000, 6_000_000, 0)})
    event = settle(
        organisation, price_version_id=version, cost_nano=140_000, reserved_nano=500_000,
        queue_us=840, compute_us=31_000, first_byte_ms=5, total_ms=40, tags={"team": "ads"},
        server="http://10.1.2.3:8000", deployment="canary", retries=1, provenance="tokenizer",
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    )  # fmt: skip
    segment = message([event])
    ingest_segment(segment)
    told = operator.get(f"/api/v1/organisations/acme/requests/{event.request_id}").json()
    assert told == operator.get(f"/api/v1/requests/{event.request_id}").json()
    assert (told["cost"], told["reserved"], told["returned"]) == ("0.00014", "0.0005", "0.00036")
    assert sum(Decimal(line["product"]) for line in told["cost_lines"]) == Decimal(told["cost"])
    assert [(phase["name"], phase["duration_us"]) for phase in told["phases"]] == [
        ("queue", 840), ("first_token", 4_160), ("rest", 35_000),
    ]  # fmt: skip
    assert [each["name"] for each in told["timeline"]] == [
        "Admitted", "Forwarded", "First byte", "Last byte", "Settled", "In the usage tables",
    ]  # fmt: skip
    assert told["segment_id"] == str(segment.segment_id)
    assert told["tags"] == {"team": "ads"}
    assert {told[name] for name in ("server", "deployment", "provenance", "trace_id")} == {
        event.server, event.deployment, event.provenance, event.trace_id,
    }  # fmt: skip


def test_another_organisations_request_is_missing_like_one_that_never_was(
    operator, organisation, onboard
):
    theirs = settle(onboard("globex"))
    ingest_segment(message([theirs]))
    answers = [
        operator.get(f"/api/v1/organisations/acme/requests/{request_id}")
        for request_id in (theirs.request_id, uuid7())
    ]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].json() == answers[1].json()


def test_an_id_that_names_nothing_is_answered_with_how_long_requests_are_kept(operator, settings):
    settings.USAGE_RETENTION_DAYS = 100
    old = uuid7(clock.to_ms(clock.now() - timedelta(days=101)))
    for text, status, code in (
        ("nonsense", 400, "invalid_request_id"),
        ("6f1c3c1e-5a3e-4a57-9a0c-0d8a3c1b2f11", 400, "invalid_request_id"),
        ("ffffffff-ffff-7fff-bfff-ffffffffffff", 400, "invalid_request_id"),
        (str(uuid7()), 404, "request_not_found"),
        (str(old), 404, "request_not_found"),
    ):
        refused = operator.get(f"/api/v1/requests/{text}")
        assert (refused.status_code, refused.json()["code"]) == (status, code), text
        assert "kept for 100 days" in refused.json()["detail"]
    assert "came in on" in refused.json()["detail"]
