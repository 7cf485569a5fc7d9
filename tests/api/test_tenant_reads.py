"""A key reads its project's usage, requests and receipts, and nothing of anybody else's."""

import json
from uuid import UUID

import pytest

from billing.pricing.book import ModelPrices
from meterplane.contracts.receipt import charge_explained, verified
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from meterplane.metering.ingest import ingest_segment
from tenants.keys import issue_key
from tenants.models import Project
from tenants.scoping import tenant_scope
from tests.billing.world import publish_prices
from tests.conftest import OnboardedOrganisation
from tests.metering.segments import message, settle

pytestmark = pytest.mark.django_db(transaction=True)

HOUR_MS = 3_600_000
BEYOND_TIME = UUID(int=(2**48 - 1) << 80 | 0x7 << 76 | 0b10 << 62)  # a UUIDv7 of the year 10889


def ask(client, caller, path, expected=200, /, **query):
    answer = client.get(path, query, headers={"Authorization": f"Bearer {caller.secret}"})
    assert answer.status_code == expected, answer.content
    return answer


def read(client, caller, path, /, **query):
    return ask(client, caller, path, **query).json()


@pytest.fixture
def elsewhere(organisation) -> OnboardedOrganisation:
    """Another project of the same organisation."""
    with tenant_scope(organisation.id):
        project = Project.objects.create(tenant_id=organisation.id, name="elsewhere")
    issued = issue_key(tenant_id=organisation.id, project_id=project.id, name="other")
    changed = {"project_id": project.id, "key_id": issued.key.id, "secret": issued.secret}
    names = OnboardedOrganisation.__slots__
    return OnboardedOrganisation(**{name: getattr(organisation, name) for name in names} | changed)


def keys(client):
    answer = client.get("/.well-known/jwks.json")
    assert answer["Content-Type"] == "application/jwk-set+json"
    return answer.json()


def test_a_receipt_is_what_was_settled_and_priced(client, organisation):
    version = publish_prices({"tiny-lm": ModelPrices(150_000, 600_000, 0)})
    event = settle(
        organisation, price_version_id=version, tags={"team": "search"}, requested_model="big-lm"
    )
    segment = uuid7()
    ingest_segment(message([event], segment))
    answer = ask(client, organisation, f"/v1/receipts/{event.request_id}")
    claims = verified(answer.content, keys(client))
    assert claims["request_id"] == str(event.request_id)
    assert claims["key_id"] == str(organisation.key_id)
    assert (claims["model"], claims["requested_model"]) == ("tiny-lm", "big-lm")
    assert claims["organisation_id"] == str(organisation.id)
    assert claims["prices"]["version_id"] == str(version)
    assert claims["charge"]["amount_nano"] == str(event.cost_nano)
    assert claims["reserved"]["amount_nano"] == str(event.reserved_nano)
    assert claims["tags"] == {"team": "search"}
    assert claims["journal_segment_id"] == str(segment)
    assert charge_explained(claims)
    again = ask(client, organisation, f"/v1/receipts/{event.request_id}")
    assert again.content == answer.content


def test_after_a_rotation_both_receipts_verify(client, organisation, settings):
    event = settle(organisation)
    ingest_segment(message([event]))
    before = ask(client, organisation, f"/v1/receipts/{event.request_id}").content
    settings.RECEIPT_SIGNING_KEYS = f"{'33' * 32},{settings.RECEIPT_SIGNING_KEYS}"
    after = ask(client, organisation, f"/v1/receipts/{event.request_id}").content
    assert before != after
    assert verified(before, keys(client)) == verified(after, keys(client))


@pytest.mark.parametrize("path", ["receipts", "requests"])
def test_anothers_request_is_missing_like_one_that_never_was(
    client, organisation, elsewhere, onboard, path
):
    """Byte for byte but for the id, for another organisation and for another project."""
    old_ms = clock.now_ms() - HOUR_MS
    events = [settle(owner, at_ms=old_ms) for owner in (organisation, elsewhere, onboard("globex"))]
    ingest_segment(message(events))
    own, *strangers = [event.request_id for event in events]
    assert ask(client, organisation, f"/v1/{path}/{own}").status_code == 200
    told = set()
    for request_id in (*strangers, uuid7(old_ms)):
        answer = ask(client, organisation, f"/v1/{path}/{request_id}", 404)
        assert "Retry-After" not in answer
        told.add(answer.content.replace(str(request_id).encode(), b""))
    assert len(told) == 1
    assert json.loads(told.pop())["error"]["code"] == "request_not_found"


@pytest.mark.parametrize("path", ["receipts", "requests"])
def test_who_asks_at_once_is_told_when_to_ask_again(client, organisation, onboard, path):
    fresh = uuid7()
    answer = ask(client, organisation, f"/v1/{path}/{fresh}", 404)
    assert answer["Retry-After"] == "1"
    assert "within seconds" in answer.json()["error"]["message"]
    theirs = settle(onboard("globex"))
    ingest_segment(message([theirs]))
    again = ask(client, organisation, f"/v1/{path}/{theirs.request_id}", 404)
    told = answer.content.replace(str(fresh).encode(), str(theirs.request_id).encode())
    assert (again.content, again["Retry-After"]) == (told, "1")
    for never in (BEYOND_TIME, uuid7(clock.now_ms() + HOUR_MS), UUID(int=7), "not-an-id"):
        assert "Retry-After" not in ask(client, organisation, f"/v1/{path}/{never}", 404)


def test_a_request_shows_its_timeline_and_how_its_cost_came_about(client, organisation):
    version = publish_prices({"tiny-lm": ModelPrices(150_000, 600_000, 0)})
    event = settle(organisation, price_version_id=version, tags={"team": "search"})
    ingest_segment(message([event]))
    told = read(client, organisation, f"/v1/requests/{event.request_id}")
    assert (told["cost"], told["reserved"], told["currency"]) == ("0.0000135", "0.00005", "USD")
    assert told["prices"]["input_token"] == "0.00000015"
    assert told["tags"] == {"team": "search"}
    assert told["timeline"]["settled_at"] > told["timeline"]["first_byte_at"]
    assert "server" not in told


def test_pages_of_requests_are_each_request_once_newest_first(client, organisation, elsewhere):
    now_ms = clock.now_ms()
    # Three in one millisecond, gaps of days, and another project's between.
    ages_ms = [0, 0, 0, 1, HOUR_MS, 3 * 24 * HOUR_MS, 40 * 24 * HOUR_MS, 91 * 24 * HOUR_MS]
    events = [settle(organisation, at_ms=now_ms - age_ms) for age_ms in ages_ms]
    ingest_segment(message(events))
    ingest_segment(message([settle(elsewhere, at_ms=now_ms - age_ms) for age_ms in ages_ms]))
    newest_first = sorted((str(event.request_id) for event in events), reverse=True)
    found, after = [], {}
    for _ in range(len(events)):
        page = read(client, organisation, "/v1/requests", limit="2", **after)
        found += [each["id"] for each in page["data"]]
        if not page["has_more"]:
            break
        after = {"after": page["last_id"]}
    assert found == newest_first


def test_requests_are_found_by_what_usage_is_asked_by(client, organisation):
    tagged = settle(organisation, tags={"team": "search"})
    failed = settle(organisation, status="error", model="identity", surface="kserve.infer")
    old = settle(organisation, at_ms=clock.now_ms() - 48 * HOUR_MS)
    ingest_segment(message([tagged, failed, old]))

    def ids(**query):
        page = read(client, organisation, "/v1/requests", **query)
        return [each["id"] for each in page["data"]]

    assert ids(**{"tag:team": "search"}) == [str(tagged.request_id)]
    assert ids(status="error", model="identity") == [str(failed.request_id)]
    assert set(ids(last="1d")) == {str(tagged.request_id), str(failed.request_id)}
    assert ids(key=str(organisation.key_id), to=clock.now().date().isoformat())[-1:] == [
        str(old.request_id)
    ]
    assert ids(key=str(uuid7())) == []


def test_usage_is_summed_within_the_project(client, organisation, elsewhere):
    ingest_segment(
        message(
            [
                settle(organisation, tags={"team": "search"}),
                settle(organisation),
                settle(elsewhere, tags={"team": "search"}),
            ]
        )
    )
    told = read(client, organisation, "/v1/usage", group_by="tag:team", bucket="day", last="2d")
    rows = {row["groups"]["tag:team"]: (row["events"], row["cost"]) for row in told["data"]}
    assert rows == {"search": (1, "0.0000135"), "": (1, "0.0000135")}
    assert [(row["events"], row["cost"]) for row in told["totals"]] == [(2, "0.000027")]
    own = str(organisation.project_id)
    assert read(client, organisation, "/v1/usage", project=own, last="2d")["totals"]


REFUSED = [
    ("usage", {"project": str(UUID(int=1))}, 404, "project"),
    ("usage", {"organisation": str(UUID(int=1))}, 404, "organisation"),
    ("usage", {"colour": "blue"}, 400, "colour"),
    ("usage", {"tz": "Mars/Olympus"}, 400, "tz"),
    ("usage", {"from": "yesterday"}, 400, "from"),
    ("requests", {"project": str(UUID(int=1))}, 404, "project"),
    ("requests", {"limit": "0"}, 400, "limit"),
    ("requests", {"limit": "101"}, 400, "limit"),
    ("requests", {"limit": "\N{SUPERSCRIPT TWO}"}, 400, "limit"),
    ("requests", {"after": "x"}, 400, "after"),
    ("requests", {"after": str(UUID(int=1))}, 400, "after"),
    ("requests", {"after": str(BEYOND_TIME)}, 400, "after"),
    ("requests", {"bucket": "day"}, 400, "bucket"),
    ("requests", {"tag:team": "\0"}, 400, "tag:team"),
    ("requests", {"status": "great"}, 400, "status"),
]


def test_what_cannot_be_asked_is_refused_by_name(client, organisation):
    for path, query, status, param in REFUSED:
        error = ask(client, organisation, f"/v1/{path}", status, **query).json()["error"]
        assert error["param"] == param, query
        assert error["message"].endswith(".")


def test_without_a_key_nothing_is_read(client, organisation):
    paths = ("usage", "requests", f"requests/{uuid7()}", f"receipts/{uuid7()}")
    for path in paths:
        answer = client.get(f"/v1/{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    headers = {"Authorization": f"Bearer {organisation.secret}"}
    refused = client.post("/v1/usage", headers=headers)
    assert (refused.status_code, refused["Allow"]) == (405, "GET")
    assert client.post("/.well-known/jwks.json").status_code == 405
