"""The control API: operator keys only, problems as RFC 9457, another tenant's object is missing."""

from pathlib import Path

import pytest
from rest_framework.test import APIClient

from meterplane.catalog.sync import sync_catalog
from meterplane.kernel.ids import uuid7
from meterplane.metering.ingest import ingest_segment
from meterplane.policy.learn import learn_reservations
from tenants.keys import issue_operator_key
from tenants.models import ApiKey
from tenants.scoping import tenant_scope
from tests.metering.segments import message, settle

pytestmark = pytest.mark.django_db
CATALOG = Path(__file__).resolve().parents[2] / "infra" / "triton" / "catalog.json"


@pytest.fixture
def anonymous() -> APIClient:
    return APIClient()


@pytest.fixture
def operator(db) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issue_operator_key('tests')}")
    return client


ROUTES = [
    ("get", "/api/v1/organisations"),
    ("post", "/api/v1/organisations"),
    ("get", "/api/v1/organisations/acme"),
    ("get", "/api/v1/organisations/acme/keys"),
    ("post", "/api/v1/organisations/acme/keys"),
    ("delete", "/api/v1/organisations/acme/keys/01900000-0000-7000-8000-000000000000"),
    ("post", "/api/v1/organisations/acme/keys/01900000-0000-7000-8000-000000000000/rotate"),
    ("get", "/api/v1/organisations/acme/usage"),
    ("get", "/api/v1/organisations/acme/usage/by/deployment"),
    ("get", "/api/v1/organisations/acme/invoices"),
    ("get", "/api/v1/models/tiny-lm/reservations"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_nobody_enters_without_an_operator_key(anonymous, organisation, method, path):
    assert getattr(anonymous, method)(path).status_code == 401
    anonymous.credentials(HTTP_AUTHORIZATION=f"Bearer {organisation.secret}")
    refused = getattr(anonymous, method)(path)
    assert refused.status_code == 401
    assert refused["Content-Type"] == "application/problem+json"
    assert "mp_admin_" in refused.json()["detail"]


def test_an_organisation_is_created_and_read_back(operator):
    body = {
        "slug": "initech",
        "name": "Initech",
        "owner_email": "owner@initech.example",
        "owner_password": "a long enough password",
    }
    made = operator.post("/api/v1/organisations", body, format="json")
    assert made.status_code == 201
    assert "password" not in made.content.decode()
    assert operator.get("/api/v1/organisations/initech").json() == made.json()
    assert [o["slug"] for o in operator.get("/api/v1/organisations").json()] == ["initech"]
    again = operator.post("/api/v1/organisations", body, format="json")
    assert (again.status_code, again.json()["code"]) == (409, "slug_taken")


def test_a_key_is_shown_once_and_revoked(operator, organisation):
    made = operator.post("/api/v1/organisations/acme/keys", {"name": "ci"}, format="json").json()
    assert made["secret"].startswith("mp_live_")
    listed = operator.get("/api/v1/organisations/acme/keys")
    assert made["secret"] not in listed.content.decode()
    revoked = operator.delete(f"/api/v1/organisations/acme/keys/{made['id']}")
    assert revoked.json()["status"] == "revoked"
    with tenant_scope(organisation.id):
        assert ApiKey.objects.get(id=made["id"]).status == "revoked"


def test_a_key_is_rotated_and_both_say_so(operator, organisation):
    keys = "/api/v1/organisations/acme/keys"
    made = operator.post(
        f"{keys}/{organisation.key_id}/rotate", {"overlap_hours": 2}, format="json"
    )
    assert made.status_code == 201
    new = made.json()
    assert new["secret"].startswith("mp_live_")
    assert (new["replaces"], new["replaced_by"]) == (str(organisation.key_id), None)
    listed = {each["id"]: each for each in operator.get(keys).json()}
    old = listed[str(organisation.key_id)]
    assert (old["replaced_by"], old["status"]) == (new["id"], "active")
    assert old["expires_at"] > new["created_at"]
    assert "secret" not in listed[new["id"]]
    again = operator.post(f"{keys}/{organisation.key_id}/rotate", {}, format="json")
    assert (again.status_code, again.json()["code"]) == (409, "key_replaced")


@pytest.mark.parametrize("hours", [-1, 721, "soon"])
def test_an_overlap_beyond_thirty_days_is_refused(operator, organisation, hours):
    path = f"/api/v1/organisations/acme/keys/{organisation.key_id}/rotate"
    refused = operator.post(path, {"overlap_hours": hours}, format="json")
    assert refused.status_code == 400
    assert refused.json()["errors"].keys() == {"overlap_hours"}


def test_another_tenants_key_is_as_missing_as_one_that_never_was(operator, onboard):
    onboard("acme")
    globex = onboard("globex")
    for verb, end in ((operator.delete, ""), (operator.post, "/rotate")):
        theirs = verb(f"/api/v1/organisations/acme/keys/{globex.key_id}{end}")
        never = verb(f"/api/v1/organisations/acme/keys/{uuid7()}{end}")
        assert theirs.status_code == never.status_code == 404
        assert theirs.content == never.content


def test_bad_input_names_the_field_and_what_to_do(operator, organisation):
    bad = operator.post("/api/v1/organisations", {"slug": "no spaces!"}, format="json")
    assert bad.status_code == 400
    assert {"slug", "name", "owner_email", "owner_password"} == bad.json()["errors"].keys()
    bad = operator.post(
        "/api/v1/organisations/acme/keys", {"name": "x", "project": "nope"}, format="json"
    )
    assert (bad.status_code, bad.json()["code"]) == (404, "project_not_found")
    for body in (b"{", b"[" * 100_000, b'{"slug": "\\ud800"}', b'{"\\udfff": 1}'):
        bad = operator.post("/api/v1/organisations", body, content_type="application/json")
        assert (bad.status_code, bad.json()["code"]) == (400, "parse_error")


def test_a_missing_organisation_is_a_problem_not_a_page(operator):
    missing = operator.get("/api/v1/organisations/nobody/usage")
    assert missing.status_code == 404
    assert missing.json()["code"] == "organisation_not_found"


def test_usage_and_invoices_of_a_new_organisation_are_empty_lists(operator, organisation):
    assert operator.get("/api/v1/organisations/acme/usage").json() == []
    assert operator.get("/api/v1/organisations/acme/invoices").json() == []
    backwards = operator.get(
        "/api/v1/organisations/acme/usage",
        {"start": "2026-11-02T00:00:00Z", "end": "2026-11-01T00:00:00Z"},
    )
    assert (backwards.status_code, backwards.json()["field"]) == (400, "start")


def test_a_weighted_split_is_seen_by_deployment(operator, organisation):
    arms = ["default"] * 3 + ["canary"]
    ingest_segment(message([settle(organisation, deployment=arm) for arm in arms]))
    rows = operator.get("/api/v1/organisations/acme/usage/by/deployment").json()
    assert [(row["group"], row["events"], row["cost"]) for row in rows] == [
        ("tiny-lm @ default", 3, "0.0000405"),
        ("tiny-lm @ canary", 1, "0.0000135"),
    ]
    tiers = operator.get("/api/v1/organisations/acme/usage").json()
    assert [(row["model"], row["service_tier"]) for row in tiers] == [("tiny-lm", "standard")]
    unknown = operator.get("/api/v1/organisations/acme/usage/by/colour")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "group_unknown")
    assert "deployment" in unknown.json()["detail"]


def test_the_committed_openapi_is_what_the_code_says(client):
    from pathlib import Path

    served = client.get("/api/schema/", HTTP_ACCEPT="application/vnd.oai.openapi")
    assert served.status_code == 200
    committed = Path(__file__).resolve().parents[2] / "platform/meterplane/api/openapi.yaml"
    assert committed.read_text() == served.content.decode(), (
        "run `manage.py spectacular --file platform/meterplane/api/openapi.yaml`"
    )


def test_what_a_models_requests_held_is_published_for_operators(operator, organisation):
    sync_catalog(CATALOG)
    empty = operator.get("/api/v1/models/tiny-lm/reservations")
    assert empty.status_code == 200
    assert empty.json() == {
        "model": "tiny-lm", "reserve": "bound", "output_tokens_default": 256,
        "output_tokens_learned": None, "answers_learned_from": 0, "learned_at": None,
        "over_hold": [],
    }  # fmt: skip
    held = [(30_000, 10_000), (30_000, 10_000), (110_000, 10_000)]
    frames = [settle(organisation, reserved_nano=most, cost_nano=cost) for most, cost in held]
    ingest_segment(message(frames))
    learn_reservations()
    told = operator.get("/api/v1/models/tiny-lm/reservations").json()
    assert told["learned_at"] is not None
    (row,) = told["over_hold"]
    assert (row["currency"], row["requests"]) == ("USD", 3)
    assert (row["mean"], row["p50"], row["p95"]) == ("0.000046667", "0.00002", "0.0001")
    assert row["held_per_cost"] == "5.67"
    missing = operator.get("/api/v1/models/nobody/reservations")
    assert (missing.status_code, missing.json()["code"]) == (404, "model_not_found")
