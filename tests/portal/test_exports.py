"""The page "Exports": asked for with the filters of the usage page, watched, downloaded, ended."""

import re
from datetime import timedelta

import pytest

from meterplane.kernel import clock
from meterplane.metering.exports.advance import step
from meterplane.metering.exports.query import stored_query
from meterplane.metering.ingest import ingest_segment
from meterplane.metering.models import Export
from tenants.scoping import system_scope, tenant_scope
from tests.metering.segments import message, settle

pytestmark = pytest.mark.django_db(transaction=True)


def form(**changes):
    today = clock.now().date()
    values = {
        "kind": "events", "format": "csv", "first_day": str(today - timedelta(days=2)),
        "last_day": str(today), "project": "", "key": "", "model": "", "surface": "", "status": "",
        "group": "model", "bucket": "day", "carried": "",
    }  # fmt: skip
    return values | changes


def the_export(organisation) -> Export:
    with tenant_scope(organisation.id):
        return Export.objects.get()


def work(export):
    while step(export.id):
        pass


def test_it_is_asked_for_written_and_downloaded(owner, organisation):
    ingest_segment(message([settle(organisation), settle(organisation, model="identity")]))
    assert "No exports yet" in owner.get("/exports/").content.decode()
    answer = owner.post("/exports/new/", form(model="identity"))
    assert answer["Location"] == "/exports/"
    waiting = owner.get("/exports/").content.decode()
    assert 'hx-trigger="every 2s"' in waiting
    assert '<progress value="0" max="3"' in waiting
    work(the_export(organisation))
    page = owner.get("/exports/").content.decode()
    assert "every 2s" not in page
    assert "<progress" not in page
    url = re.search(r'href="(/exports/[^"]+/file/)"', page)[1]
    answer = owner.get(url)
    data = answer.getvalue()
    assert data.count(b"\r\n") == 2
    assert b"identity" in data
    rest = owner.get(url, headers={"range": "bytes=100-", "if-range": answer["ETag"]})
    assert (rest.status_code, rest.getvalue()) == (206, data[100:])


def test_the_form_begins_with_what_the_usage_page_shows(owner, organisation):
    link = owner.get("/usage/?period=30d&group=status").content.decode()
    assert 'href="/exports/new/?period=30d&amp;group=status"' in link
    key = organisation.key_id
    page = owner.get(
        f"/exports/new/?from=2026-11-01&to=2026-11-09&key={key}&group_by=status&tag:team=a&tag:team=b"
    ).content.decode()
    assert 'value="2026-11-01"' in page
    assert f'<option value="{key}" selected>' in page
    assert '<option value="status" selected>' in page
    assert "tag%3Ateam=a&amp;tag%3Ateam=b" in page
    answer = owner.post("/exports/new/", form(kind="usage", carried="tag%3Ateam=a&tag%3Ateam=b"))
    assert answer.status_code == 302
    query = stored_query(the_export(organisation).query)
    assert query.filters == {"tag:team": ("a", "b")}
    assert (query.group_by, query.bucket) == (("model",), "day")


def test_a_csv_can_be_had_at_once(owner, organisation):
    ingest_segment(message([settle(organisation)]))
    answer = owner.post("/exports/new/", form(now="1"))
    assert answer["Content-Disposition"].startswith('attachment; filename="acme-events-')
    assert answer.getvalue().count(b"\r\n") == 2
    with system_scope("test"):
        assert not Export.objects.exists()


def test_what_cannot_be_exported_is_said_beside_its_field(owner):
    for wrong, words in (
        ({"last_day": "2020-01-01"}, "must begin before it ends"),
        ({"first_day": "2020-01-01"}, "at most 400 days"),
        ({"kind": "all"}, "Select a valid choice"),
        ({"key": "01900000-0000-7000-8000-000000000000"}, "Select a valid choice"),
        ({"carried": "colour=red"}, "is no parameter here"),
        ({"first_day": "yesterday"}, "Enter a valid date"),
    ):
        answer = owner.post("/exports/new/", form(**wrong))
        assert answer.status_code == 200
        assert words in answer.content.decode()


def test_one_is_cancelled_and_then_removed(owner, organisation):
    owner.post("/exports/new/", form())
    end = f"/exports/{the_export(organisation).id}/end/"
    owner.post(end)
    assert the_export(organisation).state == "cancelled"
    owner.post(end)
    assert "No exports yet" in owner.get("/exports/").content.decode()


def test_another_organisations_export_is_missing(owner, organisation, onboard, signed_in):
    stranger = signed_in(onboard("globex").owner)
    ingest_segment(message([settle(organisation)]))
    owner.post("/exports/new/", form())
    export = the_export(organisation)
    work(export)
    assert owner.get(f"/exports/{export.id}/file/").status_code == 200
    assert stranger.get(f"/exports/{export.id}/file/").status_code == 404
    assert stranger.post(f"/exports/{export.id}/end/").status_code == 404
    assert str(export.id) not in stranger.get("/exports/").content.decode()


def test_who_only_looks_may_download_but_not_ask(owner, organisation, as_role):
    owner.post("/exports/new/", form())
    export = the_export(organisation)
    work(export)
    viewer = as_role("viewer")
    assert "your role may look and download" in viewer.get("/exports/").content.decode()
    assert viewer.get(f"/exports/{export.id}/file/").status_code == 200
    assert viewer.get("/exports/new/").status_code == 403
    assert viewer.post(f"/exports/{export.id}/end/").status_code == 403
    for role in ("billing", "developer", "admin"):
        assert as_role(role).get("/exports/new/").status_code == 200
