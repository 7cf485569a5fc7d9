"""Exports over the control API: of one organisation, and over all of them."""

from uuid import UUID

import pytest

from meterplane.metering.exports.advance import step
from meterplane.metering.ingest import ingest_segment
from tests.api.test_limits_api import AT, NOWHERE, Operator
from tests.metering.segments import message, settle

pytestmark = pytest.mark.django_db(transaction=True)
ALL = "/api/v1/exports"
BODY = {"kind": "events", "format": "csv", "query": {"last": "2d"}}


@pytest.fixture
def operator(organisation, onboard):
    ingest_segment(message([settle(organisation), settle(onboard("globex"))]))
    return Operator()


def work(export_id):
    while step(UUID(export_id)):
        pass


@pytest.mark.parametrize(("path", "rows"), [(f"{AT}/exports", 1), (ALL, 2)])
def test_an_export_is_asked_for_watched_and_fetched(operator, path, rows):
    made = operator.ask("post", path, BODY, 201)
    assert (made["state"], made["file"], made["days_done"]) == ("queued", None, 0)
    assert made["requested_by"].startswith("operator key tests")
    work(made["id"])
    done = operator.ask("get", f"{path}/{made['id']}")
    assert (done["state"], done["rows"], done["error"]) == ("done", rows, "")
    assert done["cost"] == {"USD": "0.0000135" if rows == 1 else "0.000027"}
    answer = operator.client.get(done["file"], headers={"accept": "text/csv"})
    assert answer.getvalue().count(b"\r\n") == rows + 1
    assert answer["ETag"] == f'"{done["sha256"]}"'
    part = operator.client.get(done["file"], headers={"range": "bytes=5-9"})
    assert (part.status_code, len(part.getvalue())) == (206, 5)
    assert operator.ask("get", path)["exports"] == [done]
    operator.ask("delete", f"{path}/{made['id']}", status=204)
    operator.ask("get", f"{path}/{made['id']}", status=404)


def test_a_list_is_read_a_page_at_a_time(operator):
    made = [operator.ask("post", ALL, BODY, 201)["id"] for _ in range(3)]
    page = operator.ask("get", f"{ALL}?limit=2")
    assert [each["id"] for each in page["exports"]] == made[:0:-1]
    rest = operator.ask("get", f"{ALL}?limit=2&cursor={page['next_cursor']}")
    assert ([each["id"] for each in rest["exports"]], rest["next_cursor"]) == (made[:1], None)


def test_one_owners_export_is_not_anothers(operator):
    made = operator.ask("post", f"{AT}/exports", BODY, 201)
    for path in (ALL, "/api/v1/organisations/globex/exports"):
        for method, rest in (("get", ""), ("get", "/file"), ("delete", "")):
            problem = operator.ask(method, f"{path}/{made['id']}{rest}", status=404)
            assert problem["code"] == "export_not_found"
    assert operator.ask("get", ALL)["exports"] == []


def test_it_is_cancelled(operator):
    made = operator.ask("post", ALL, BODY, 201)
    assert operator.ask("get", f"{ALL}/{made['id']}/file", status=409)["code"] == "export_not_ready"
    assert operator.ask("delete", f"{ALL}/{made['id']}")["state"] == "cancelled"


def test_a_csv_can_be_streamed(operator):
    answer = operator.client.get(f"{AT}/exports/stream?kind=usage&last=2d&group_by=model")
    header, row, end = answer.getvalue().decode().split("\r\n")
    assert header.startswith("model,currency,events,")
    assert (row.split(",")[:3], end) == (["tiny-lm", "USD", "1"], "")
    assert operator.client.get(f"{ALL}/stream?last=2d").getvalue().count(b"\r\n") == 3


def test_what_is_wrong_is_a_problem_that_names_it(operator):
    for body, code in (
        ({"kind": "all", "format": "csv"}, "invalid"),
        (BODY | {"query": {"colour": "red"}}, "unknown_parameter"),
        (BODY | {"query": {"last": 2}}, "invalid"),
        (BODY | {"query": "last=2d"}, "invalid"),
        ({"kind": "focus", "format": "csv", "query": {"bucket": "month"}}, "export_invalid"),
    ):
        assert operator.ask("post", ALL, body, 400)["code"] == code
    operator.ask("get", f"{ALL}/{NOWHERE}", status=404)
    operator.ask("post", "/api/v1/organisations/nobody/exports", BODY, 404)
    assert operator.ask("get", f"{ALL}/stream?kind=xlsx", status=400)["code"] == "export_invalid"


def test_only_an_operator_may(client, organisation):
    for path in (ALL, f"{AT}/exports", f"{ALL}/{NOWHERE}/file", f"{ALL}/stream"):
        assert client.get(path).status_code == 401
        bearer = {"authorization": f"Bearer {organisation.secret}"}
        assert client.get(path, headers=bearer).status_code == 401
