"""What was used is what the file holds: every row, to the nano, and nobody else's."""

import random
import re
from datetime import timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.db import connection
from django.db.models import Sum

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.metering.event_table import EVENT_COLUMNS
from meterplane.metering.exports import content, limits, source
from meterplane.metering.exports import sweep as sweeping
from meterplane.metering.exports.query import checked, stored_query
from meterplane.metering.exports.request import end_export, find_export
from meterplane.metering.exports.stream import csv_blocks
from meterplane.metering.models import Export, UsageEvent, UsageHour
from tenants.scoping import system_scope, tenant_scope
from tests.metering.exports.written import as_text, asked, content_of, rows_of, take_in, worked
from tests.metering.segments import random_settles, settle

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def chance():
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


def test_csv_and_parquet_hold_the_rows_of_the_database(organisation, chance):
    take_in(random_settles(organisation, chance, 300))
    take_in([settle(organisation, tags={"team": "search", "feature": "=1+1"})])
    as_csv = worked(asked(organisation.id))
    as_parquet = worked(asked(organisation.id, file_format="parquet"))
    typed = rows_of(as_parquet)
    assert rows_of(as_csv) == [{n: as_text(v) for n, v in row.items()} for row in typed]
    with tenant_scope(organisation.id):
        stored = list(UsageEvent.objects.order_by("event_day", "request_id"))
    assert len(stored) == as_csv.rows == as_parquet.rows == 301
    for row, event in zip(typed, stored, strict=True):
        assert row["cost"] == Decimal(event.cost_nano) / 10**9
        assert row["event_at"] == event.event_at
        assert row["request_id"] == str(event.request_id)
        for name in ("model", "status", "tokens_in", "tokens_out", "stream", "total_ms"):
            assert row[name] == getattr(event, name)
    assert typed[-1]["tags"] == '{"feature":"=1+1","team":"search"}'
    assert as_csv.sums == {"USD": sum(event.cost_nano for event in stored)}


def test_parquet_is_typed_and_every_column_of_an_event_has_its_place(organisation):
    take_in([settle(organisation)])
    made = worked(asked(organisation.id, file_format="parquet"))
    schema = pq.read_schema(pa.BufferReader(content_of(made)))
    assert schema.field("cost").type == pa.decimal128(38, 9)
    assert schema.field("event_at").type == pa.timestamp("ms", tz="UTC")
    assert {field.name for field in UsageEvent._meta.concrete_fields if field.name != "pk"} == {
        name.removesuffix("_id") if name == "tenant_id" else name for name in EVENT_COLUMNS
    }


def test_the_sums_of_events_and_of_sums_are_those_of_the_roll_ups(organisation, chance):
    take_in(random_settles(organisation, chance, 200))
    with tenant_scope(organisation.id):
        names = ("events", "tokens_out", "cost_nano")
        total = UsageHour.objects.aggregate(**{name: Sum(name) for name in names})
    events = rows_of(worked(asked(organisation.id, file_format="parquet", days=9)))
    for group_by, bucket in (("model,status", "day"), ("key", "hour"), ("surface", "month")):
        made = worked(
            asked(organisation.id, "usage", "parquet", 9, group_by=group_by, bucket=bucket)
        )
        sums = rows_of(made)
        assert sum(row["cost"] for row in sums) * 10**9 == total["cost_nano"]
        assert sum(row["events"] for row in sums) == total["events"] == len(events) == 200
        assert sum(row["tokens_out"] for row in sums) == total["tokens_out"]
        assert made.sums == {"USD": total["cost_nano"]}
    assert sum(row["cost"] for row in events) * 10**9 == total["cost_nano"]


def test_filters_are_those_of_the_screen(organisation, onboard, chance):
    frames = random_settles(organisation, chance, 120)
    frames.append(settle(organisation, tags={"team": "search"}))
    frames.append(settle(organisation, tags={"team": "ads"}))
    take_in(frames)
    for wanted, params in (
        (lambda f: f.model == "identity", {"model": "identity"}),
        (lambda f: f.status == "error", {"status": "error"}),
        (lambda f: f.surface == "openai.chat", {"surface": "openai.chat"}),
        (lambda f: f.tags.get("team") == "search", {"tag:team": "search"}),
        (lambda f: not f.tags, {"tag:team": ""}),
        (lambda f: True, {"key": str(organisation.key_id)}),
        (lambda f: False, {"project": str(onboard("globex").project_id)}),
    ):
        rows = rows_of(worked(asked(organisation.id, **params)))
        assert {row["request_id"] for row in rows} == {
            str(frame.request_id) for frame in frames if wanted(frame)
        }, params


def test_what_is_taken_in_later_is_not_in_an_export_that_began_before(organisation, chance):
    take_in(random_settles(organisation, chance, 40))
    made = asked(organisation.id)
    take_in(random_settles(organisation, chance, 40))
    assert worked(made).rows == 40


def test_it_waits_for_whoever_was_taking_usage_in_when_it_began(organisation):
    """A row names the instant its transaction began: before anybody can see it."""
    import psycopg

    from tests import environment

    with psycopg.connect(environment.database_url("meterplane_app")) as writer:
        writer.execute("SELECT 1")
        made = asked(organisation.id)
        assert not worked(made).finished_at
        writer.rollback()
        assert worked(made).state == "done"


def test_an_organisation_exports_its_own_usage_and_finds_its_own_exports(organisation, onboard):
    other = onboard("globex")
    take_in([settle(organisation), settle(other), settle(other)])
    mine, theirs, all_of_them = (
        worked(asked(tenant_id)) for tenant_id in (organisation.id, other.id, None)
    )
    assert [mine.rows, theirs.rows, all_of_them.rows] == [1, 2, 3]
    assert {row["tenant_id"] for row in rows_of(theirs)} == {str(other.id)}
    assert {row["tenant_id"] for row in rows_of(all_of_them)} == {
        str(organisation.id), str(other.id),
    }  # fmt: skip
    for tenant_id, export in ((organisation.id, theirs), (organisation.id, all_of_them)):
        with pytest.raises(CallerError, match="no export"):
            find_export(tenant_id, export.id)
    with tenant_scope(organisation.id), connection.cursor() as cursor:
        for table in ("export", "export_part"):
            cursor.execute(f"SELECT count(*) FROM {table}")
            assert cursor.fetchone() == (1,)
        cursor.execute("SELECT has_table_privilege('export_destination', 'SELECT')")
        assert cursor.fetchone() == (False,)


def test_a_spreadsheet_runs_nothing_of_what_people_typed(organisation):
    formulas = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"]
    take_in([settle(organisation, requested_model=text) for text in formulas])
    cells = [row["requested_model"] for row in rows_of(worked(asked(organisation.id)))]
    assert sorted(cells) == sorted(f"'{text}" for text in formulas)


def test_parts_and_pages_end_anywhere_and_the_file_is_the_same(organisation, chance, monkeypatch):
    take_in(random_settles(organisation, chance, 230))
    frozen = [("events", "csv"), ("events", "parquet"), ("focus", "csv")]
    whole = {each: content_of(worked(asked(organisation.id, *each))) for each in frozen}
    monkeypatch.setattr("meterplane.metering.exports.source.PAGE_ROWS", 7)
    monkeypatch.setattr("meterplane.metering.exports.focus.PAGE_ROWS", 12)
    monkeypatch.setattr("meterplane.metering.exports.advance.PART_ROWS", 30)
    for each in frozen:
        made = worked(asked(organisation.id, *each))
        assert made.parts > 3
        assert content_of(made) == whole[each]


def test_it_answers_at_once_and_reads_no_page_that_is_not_asked_for(
    organisation, chance, monkeypatch
):
    take_in(random_settles(organisation, chance, 60))
    monkeypatch.setattr("meterplane.metering.exports.source.PAGE_ROWS", 10)
    reads = []
    real = source.read
    monkeypatch.setattr(
        "meterplane.metering.exports.source.read", lambda *what: reads.append(1) or real(*what)
    )
    made = asked(organisation.id)
    query = checked("events", "csv", {"from": [made.query["start"]], "to": [made.query["end"]]})
    blocks = csv_blocks(organisation.id, query)
    assert next(blocks).startswith(b"tenant_id,event_day,request_id,")
    assert reads == []
    first = next(blocks)
    assert len(reads) <= 5  # days without usage are passed over
    rest = b"".join(blocks)
    assert first.count(b"\r\n") + rest.count(b"\r\n") == 60
    assert len(reads) >= 6


def test_a_page_begins_in_the_index_where_the_page_before_ended(organisation, monkeypatch):
    """Or each page would read its day from the start, and an export take the square of its rows."""
    take_in([settle(organisation) for _ in range(20)])
    plans = []
    real = source.read

    def explained(statement, parameters):
        plans.append("\n".join(line for (line,) in real(f"EXPLAIN {statement}", parameters)))
        return real(statement, parameters)

    made = asked(organisation.id)
    monkeypatch.setattr("meterplane.metering.exports.source.read", explained)
    with tenant_scope(organisation.id), connection.cursor() as cursor:
        # Of twenty rows any way is as good: what a large day is read by must be possible.
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
        read_from = source.source_of(stored_query(made.query), made.ingested_until)
        rows = sum(page.rows.num_rows for page in source.all_pages(read_from))
    assert rows == 20
    (today,) = [plan for plan in plans if f"usage_event_{clock.now():%Y%m%d}" in plan]
    assert "Sort" not in today
    assert re.search(r"Index Cond: .*ROW\(tenant_id, event_day, request_id\) > ROW", today)


def test_one_that_is_called_off_ends_and_one_that_has_ended_is_removed(organisation):
    take_in([settle(organisation)])
    made = asked(organisation.id)
    assert end_export(organisation.id, made.id).state == "cancelled"
    assert worked(made).rows == 0
    assert end_export(organisation.id, made.id) is None
    done = worked(asked(organisation.id))
    assert content.digest_of(done.id, 0) == done.sha256
    assert end_export(organisation.id, done.id) is None
    assert content.digest_of(done.id, 0) == ""


def test_files_are_let_go_of_after_their_time_and_lost_doorbells_rung(organisation, monkeypatch):
    rung = []
    monkeypatch.setattr(sweeping, "ring", rung.append)
    take_in([settle(organisation)])
    done, open_one = worked(asked(organisation.id)), asked(organisation.id)
    sweeping.sweep()
    assert rung == []
    with clock.frozen(clock.now() + limits.QUIET_FOR):
        sweeping.sweep()
        sweeping.sweep()
    assert rung == [open_one.id]
    with clock.frozen(clock.now() + timedelta(days=7, minutes=1)):
        sweeping.sweep()
    assert content.digest_of(done.id, 0) == ""
    with system_scope("test"):
        assert [(each.id, each.state) for each in Export.objects.all()] == [(open_one.id, "failed")]


def test_nobody_has_more_than_a_few_written_at_once(organisation, monkeypatch):
    monkeypatch.setattr("meterplane.metering.exports.request.OPEN_PER_OWNER_MAX", 1)
    asked(organisation.id)
    with pytest.raises(CallerError, match="being written"):
        asked(organisation.id)


@pytest.mark.parametrize(
    ("kind", "file_format", "params", "field"),
    [
        ("event", "csv", {}, "kind"),
        ("events", "xlsx", {}, "format"),
        ("events", "csv", {"from": ["2026-11-02"], "to": ["2026-11-01"]}, "from"),
        ("events", "csv", {"from": ["2024-11-02"], "to": ["2026-11-01"]}, "from"),
        ("events", "csv", {"colour": ["red"]}, "colour"),
        ("events", "csv", {"project": ["1"]}, "project"),
        ("focus", "csv", {"bucket": ["month"]}, "bucket"),
        ("focus", "csv", {"tz": ["Europe/Berlin"]}, "tz"),
    ],
)
def test_what_cannot_be_exported_is_refused_by_its_name(kind, file_format, params, field):
    with pytest.raises(CallerError) as refused:
        checked(kind, file_format, params)
    assert refused.value.field == field
