"""External events over the control API: CloudEvents 1.0, single, batch and binary; any body."""

import json
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework.test import APIClient

from meterplane.kernel import clock
from tenants.keys import issue_operator_key
from tests.metering.external.sent import TYPE, event
from tests.metering.external.test_receive import stored

pytestmark = pytest.mark.django_db
EVENTS = "/api/v1/events"
ONE, MANY = "application/cloudevents+json", "application/cloudevents-batch+json"
NOWHERE = "01900000-0000-7000-8000-000000000000"


@pytest.fixture
def operator(organisation):
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issue_operator_key('tests')}")
    return client


def post(operator, body, media=ONE, path=EVENTS, **headers):
    sent = body if isinstance(body, bytes | str) else json.dumps(body)
    return operator.post(path, sent, content_type=media, **headers)


def test_one_event_is_201_then_200_with_the_same_bytes_then_409(operator):
    sent = event()
    first, again = post(operator, sent), post(operator, sent)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.content == again.content
    assert first.json()["organisation"] == "acme"
    assert first.json()["event_id"] == "1"
    other = post(operator, sent | {"data": {"gpu_seconds": 13, "gpu": "h200"}})
    assert other.status_code == 409
    assert other["Content-Type"] == "application/problem+json"
    problem = other.json()
    assert (problem["code"], problem["differs"]) == ("event_conflict", ["data.gpu_seconds"])
    assert problem["receipt"] == first.json()
    refused = post(operator, event("2", type=None))
    assert (refused.status_code, refused.json()["field"]) == (422, "type")


def test_a_batch_is_200_with_a_result_for_each_in_order(operator):
    sent = [event("1"), event("2"), 7, event("3", subject="nobody")]
    sent.insert(1, sent[0])
    answer = post(operator, sent, MANY)
    assert answer.status_code == 200
    body = answer.json()
    assert [body[name] for name in ("accepted", "duplicate", "conflict", "invalid")] == [2, 1, 0, 2]
    results = body["results"]
    assert [each["index"] for each in results] == [0, 1, 2, 3, 4]
    assert [each["id"] for each in results] == ["1", "1", "2", None, "3"]
    assert results[0]["receipt"] == results[1]["receipt"]
    assert results[4]["problem"]["field"] == "subject"
    assert "receipt" not in results[4]
    assert len(stored()) == 2
    again = post(operator, sent, MANY).json()["results"]
    assert [each.get("receipt") for each in again] == [each.get("receipt") for each in results]


def test_what_is_larger_than_a_batch_is_refused_whole(operator):
    events = [event(str(number)) for number in range(1001)]
    refused = post(operator, events, MANY)
    assert (refused.status_code, refused.json()["code"]) == (413, "batch_too_large")
    large = post(operator, b"[" + b" " * 4 * 1024 * 1024 + b"]", MANY)
    assert (large.status_code, large.json()["code"]) == (413, "body_too_large")
    assert stored() == []
    assert post(operator, events[:1000], MANY).json()["accepted"] == 1000


def test_the_attributes_may_be_headers(operator):
    sent = event(source="/jobs/7 8")
    headers = {
        f"HTTP_CE_{name.upper()}": value.replace(" ", "%20")
        for name, value in sent.items()
        if name != "data"
    }
    binary = post(operator, sent["data"], "application/json", **headers)
    assert binary.status_code == 201, binary.content
    assert binary.json()["source"] == "/jobs/7 8"
    assert post(operator, sent).content == binary.content
    nothing = post(operator, sent, "application/json")
    assert (nothing.status_code, nothing.json()["code"]) == (415, "media_type")
    assert post(operator, "x", "text/plain").status_code == 415


def test_events_are_listed_amended_and_told_with_their_history(operator):
    sent = [event(str(n), type=TYPE if n % 2 else "com.acme.storage") for n in range(5)]
    post(operator, sent, MANY)
    listed = operator.get(EVENTS, {"organisation": "acme", "type": TYPE}).json()
    assert [each["receipt"]["event_id"] for each in listed["events"]] == ["3", "1"]
    seen, cursor = [], None
    while True:
        asked = {"organisation": "acme", "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = operator.get(EVENTS, asked).json()
        seen += [each["receipt"]["event_id"] for each in page["events"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ["4", "3", "2", "1", "0"]
    receipt = listed["events"][0]["receipt"]["id"]
    amended = post(
        operator, b'{"data": {"gpu_seconds": 0.10000000000000001}, "reason": "log"}',
        "application/json", f"{EVENTS}/{receipt}/amend",
    )  # fmt: skip
    assert b'"data":{"gpu_seconds":0.10000000000000001}' in amended.content
    named = {"organisation": "acme", "source": "/jobs/7", "id": "3", "reason": "twice"}
    done = post(operator, named, "application/json", f"{EVENTS}/deprecate").json()
    assert (done["counts"], done["overlays"]) == (False, 2)
    assert [each["kind"] for each in done["history"]] == ["amend", "deprecate"]
    assert done["history"][0]["by"].startswith("operator key tests")
    assert operator.get(f"{EVENTS}/{receipt}").json() == done
    early = {"organisation": "acme", "to": (clock.now() - timedelta(hours=2)).isoformat()}
    assert operator.get(EVENTS, early).json()["events"] == []


def test_a_backfill_is_opened_filled_closed_and_reverted(operator):
    now = clock.now()
    post(operator, event("old"))
    opened = post(
        operator,
        {
            "organisation": "acme", "type": TYPE, "reason": "the meter stood still",
            "start": (now - timedelta(hours=2)).isoformat(), "end": now.isoformat(),
        },
        "application/json", "/api/v1/backfills",
    )  # fmt: skip
    assert opened.status_code == 201, opened.content
    at = f"/api/v1/backfills/{opened.json()['id']}"
    assert post(operator, event("new", backfill=opened.json()["id"])).status_code == 201
    closed = post(operator, "", "application/json", f"{at}/close").json()
    assert (closed["state"], closed["added"], closed["replaced"]) == ("closed", 1, 1)
    listed = operator.get(EVENTS, {"organisation": "acme"}).json()["events"]
    assert [(e["receipt"]["event_id"], e["counts"]) for e in listed] == [
        ("new", True), ("old", False),
    ]  # fmt: skip
    done = post(operator, {"reason": "wrong file"}, "application/json", f"{at}/revert").json()
    assert done["state"] == "reverted"
    assert operator.get(at).json() == done
    assert operator.get("/api/v1/backfills", {"organisation": "acme"}).json() == [done]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", EVENTS), ("post", EVENTS), ("get", f"{EVENTS}/{NOWHERE}"),
        ("post", f"{EVENTS}/{NOWHERE}/amend"), ("post", f"{EVENTS}/{NOWHERE}/deprecate"),
        ("get", "/api/v1/backfills"), ("post", "/api/v1/backfills"),
        ("get", f"/api/v1/backfills/{NOWHERE}"), ("post", f"/api/v1/backfills/{NOWHERE}/close"),
        ("post", f"/api/v1/backfills/{NOWHERE}/revert"),
    ],
)  # fmt: skip
def test_nobody_enters_without_an_operator_key(organisation, operator, method, path):
    customer = APIClient()
    customer.credentials(HTTP_AUTHORIZATION=f"Bearer {organisation.secret}")
    assert getattr(customer, method)(path).status_code == 401
    if NOWHERE in path:
        media = {"content_type": "application/json"} if method == "post" else {}
        body = ['{"reason": "x", "data": {}}'] if method == "post" else []
        assert getattr(operator, method)(path, *body, **media).status_code == 404


# Any JSON value, and the ones that break parsers, in the place of any attribute.
AWKWARD = [
    "\ud800", "\0", "1" * 400, 10**70, 1e300, "9999-12-31T23:59:60Z", "acme", "1.0",
    "0001-01-01T00:00:00+14:00",
]  # fmt: skip
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(AWKWARD)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
names = st.sampled_from(
    ["specversion", "id", "source", "type", "subject", "time", "data", "project", "backfill",
     "datacontenttype", "data_base64", "Trace-Parent", "traceparent", "\0"]
)  # fmt: skip


changes = st.lists(st.tuples(names, values), min_size=1, max_size=3)


@settings(
    max_examples=30, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(of_each=st.lists(changes, min_size=10, max_size=10))
def test_malformed_events_are_told_so_and_hold_up_no_good_one(operator, of_each):
    """300 of them, in 30 batches."""
    broken = [event(f"broken {n}") | dict(each) for n, each in enumerate(of_each)]
    sent = [*broken, event("good", time=None), [value for _, value in of_each[0]]]
    answer = post(operator, sent, MANY)
    assert answer.status_code == 200, answer.content
    *of_broken, good, last = answer.json()["results"]
    assert good["status"] in ("accepted", "duplicate")
    assert last["status"] == "invalid", "a list is no event"
    for each in of_broken:
        assert ("problem" in each) == (each["status"] in ("conflict", "invalid"))
        assert ("receipt" in each) == (each["status"] != "invalid")
    alone = post(operator, broken[0])
    assert alone.status_code in (200, 409, 422), alone.content
    assert (alone.status_code == 422) == (of_broken[0]["status"] == "invalid")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"\xff", b"[" * 100_000, b"null", b"7", b'"x"', b"NaN", b'{"a":1,"a":2}',
        b"\xef\xbb\xbf{}", b'{"specversion": 1e999999999999999999999}', b'[{"x":}]',
    ],
)  # fmt: skip
def test_a_body_that_is_no_event_is_refused_with_a_sentence(operator, body):
    for media in (ONE, MANY):
        answer = post(operator, body, media)
        assert answer.status_code in (400, 422), answer.content
        assert answer.json()["detail"]
    assert stored() == []


@pytest.mark.parametrize(
    "text",
    ['{"a":1,"a":2}', '{"a":NaN}', '{"a":-Infinity}', '{"a":"\\u0000"}', '{"a":"\\ud800"}',
     '{"a":1e39}', '{"a":1e-19}', '{"a":' + "1" * 5000 + "}", "[]", "null", '"x"',
     '{"a":' * 9 + "1" + "}" * 9, '{"a":"' + "x" * 32 * 1024 + '"}', '{"\\u0000":1}'],
)  # fmt: skip
def test_data_that_cannot_be_kept_exactly_is_invalid_and_said_where(operator, text):
    sent = f'{json.dumps(event("1", data=None))[:-1]},"data":{text}}}'
    alone = post(operator, sent)
    assert (alone.status_code, alone.json()["field"]) == (422, "data"), alone.content
    batch = post(operator, f"[{sent},{json.dumps(event('2'))}]", MANY).json()
    assert [each["status"] for each in batch["results"]] == ["invalid", "accepted"]
