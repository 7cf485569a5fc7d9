"""A day past keeping goes to a file and comes back; it is never in neither, nor counted twice."""

import random
from datetime import date, timedelta

import msgspec
import psycopg
import pyarrow.parquet as pq
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError, IntegrityError, connection

from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from meterplane.kernel.invariant import InvariantBroken
from meterplane.metering import archive, archive_file, arrivals, partitions
from meterplane.metering.ingest import IngestResult, ingest_segment
from meterplane.metering.models import (
    UsageArchive,
    UsageEvent,
    UsageHour,
    UsageQuarantine,
    UsageRevision,
)
from tenants.scoping import system_scope, tenant_scope
from tests import environment
from tests.metering.segments import message, random_settles, settle
from tests.metering.tables import digest_of_usage, drop_days_past_keeping

pytestmark = pytest.mark.django_db(transaction=True)

DAY = date(2021, 3, 4)
DAY_MS = 86_400_000
START_MS = (DAY - date(1970, 1, 1)).days * DAY_MS


@pytest.fixture(autouse=True)
def folder(settings, tmp_path):
    drop_days_past_keeping()
    settings.ARCHIVE_DIR = tmp_path / "archive"
    settings.USAGE_RETENTION_DAYS = 400
    yield settings.ARCHIVE_DIR
    drop_days_past_keeping()  # those that were closed take nothing in


@pytest.fixture
def frames(organisation):
    chance = random.Random(3)
    return [
        settle(
            organisation,
            at_ms=START_MS + chance.randrange(DAY_MS),
            currency=chance.choice(["USD", "EUR"]),
            cost_nano=chance.randrange(50_000),
            tags={"team": "ä, 'b'"} if chance.random() < 0.5 else {},
        )
        for _ in range(50)
    ]


def attached() -> bool:
    with psycopg.connect(environment.database_url("postgres")) as admin:
        row = admin.execute("SELECT to_regclass('usage_event_20210304') IS NOT NULL").fetchone()
    return row == (True,)


def counted() -> tuple[int, int]:
    with system_scope("test"):
        return UsageEvent.objects.count(), sum(row.events for row in UsageHour.objects.all())


def test_a_day_past_keeping_goes_to_a_file_and_comes_back_as_it_was(organisation, frames, folder):
    ingest_segment(message([*frames, settle(organisation)]))
    before = digest_of_usage()
    assert archive.archive_due_days() == [DAY]
    assert not attached()
    assert counted() == (1, 51)  # sums stay
    with system_scope("test"):
        record = UsageArchive.objects.get()
    cost_nano = {
        name: sum(f.cost_nano for f in frames if f.currency == name) for name in ("USD", "EUR")
    }
    assert record.cost_nano == {name: str(amount) for name, amount in cost_nano.items()}
    table = pq.read_table(folder / record.file_name)
    assert set(table["request_id"].to_pylist()) == {str(frame.request_id) for frame in frames}
    assert archive.archive_due_days() == []

    call_command("restore_usage_day", str(DAY))
    assert digest_of_usage() == before
    with pytest.raises(CommandError, match="is in PostgreSQL"):
        call_command("restore_usage_day", str(DAY))
    assert archive.archive_due_days() == []  # for some days it stays
    with clock.frozen(clock.now() + timedelta(days=archive.RESTORED_DAYS + 1)):
        assert DAY in archive.archive_due_days()
    assert counted()[1] == 51


def test_a_file_from_before_a_column_comes_back_with_what_the_column_says_of_it(
    organisation, frames, folder
):
    served = {"priority": "high", "region": "eu", "gpu_type": "H100"}
    placed = [msgspec.structs.replace(frame, **served) for frame in frames[:5]]
    ingest_segment(message([*placed, *frames[5:]]))
    archive.archive_due_days()
    with system_scope("test"), connection.cursor() as db:
        path = folder / UsageArchive.objects.get().file_name
        whole = list(archive_file.rows_of(path))
        pq.write_table(pq.read_table(path).drop_columns(list(served)), path)
        db.execute("UPDATE usage_archive SET sha256 = %s", [archive_file.sha256_of(path)])
    unsaid = {"priority": "normal", "region": "", "gpu_type": ""}
    names = list(archive_file.COLUMNS)
    assert [dict(zip(names, row, strict=True)) for row in archive_file.rows_of(path)] == [
        dict(zip(names, row, strict=True)) | unsaid for row in whole
    ]
    assert archive.restore_day(DAY) == 50
    with system_scope("test"):
        assert UsageEvent.objects.filter(**unsaid).count() == 50


def test_what_comes_for_an_archived_day_is_set_aside_and_holds_nothing_up(organisation, frames):
    ingest_segment(message(frames))
    archive.archive_due_days()
    late = settle(organisation, at_ms=START_MS + 5)
    found = ingest_segment(message([late, frames[0], settle(organisation)]))
    assert found == IngestResult(1, 1, 2)
    assert not attached()
    assert counted() == (1, 51)
    with system_scope("test"):
        assert {row.reason for row in UsageQuarantine.objects.all()} == {
            "its day, 2021-03-04, was archived before it came"
        }
    with (
        pytest.raises(DatabaseError, match="was archived"),
        system_scope("test"),
        connection.cursor() as db,
    ):
        db.execute("SELECT ensure_usage_partition(%s)", [DAY])


def test_who_believed_a_day_to_be_open_is_refused_by_postgresql(organisation, frames, monkeypatch):
    ingest_segment(message(frames))
    with system_scope("test"), connection.cursor() as db:
        db.execute("SELECT close_usage_day(%s)", [DAY])
    late = message([settle(organisation, at_ms=START_MS + 5)])
    with monkeypatch.context() as believing:
        believing.setattr("meterplane.metering.ingest.ensure_partitions", lambda days: set())
        with pytest.raises(IntegrityError, match="usage_day_closed"):
            ingest_segment(late)
    assert ingest_segment(late) == IngestResult(0, 0, 1)  # when it is sent again
    assert archive.archive_due_days() == [DAY]


@pytest.mark.parametrize("moment", ["after_close", "after_file", "after_record", "before_drop"])
def test_whoever_is_cut_short_is_followed_by_the_next_run(frames, monkeypatch, moment):
    """Killed for real in `test_failpoints`; here at each step, and looked at in between."""
    ingest_segment(message(frames))
    before = digest_of_usage()

    def die(name: str) -> None:
        if name == f"archive.day.{moment}":
            raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr("meterplane.metering.archive.failpoint", die)
        with pytest.raises(KeyboardInterrupt):
            archive.archive_due_days()
    assert digest_of_usage() == before
    assert archive.archive_due_days() == [DAY]
    assert not attached()
    archive.restore_day(DAY)
    assert digest_of_usage() == before


def test_a_file_that_does_not_hold_the_day_lets_nothing_go(frames, folder, monkeypatch):
    ingest_segment(message(frames))
    real = archive._batches
    monkeypatch.setattr(archive, "_batches", lambda day: [rows[1:] for rows in real(day)])
    with pytest.raises(InvariantBroken, match="is not what PostgreSQL has"):
        archive.archive_due_days()
    monkeypatch.setattr(archive, "_batches", real)
    monkeypatch.setattr(archive, "failpoint", lambda name: spoil(folder, name))
    with pytest.raises(InvariantBroken, match="is not what was recorded"):
        archive.archive_due_days()
    assert counted() == (50, 50)


def spoil(folder, name: str) -> None:
    if name == "archive.day.after_record":
        (path,) = folder.glob("*.parquet")
        path.write_bytes(path.read_bytes()[:-1] + b"?")


def test_no_day_is_dropped_that_is_in_no_file(frames):
    ingest_segment(message(frames))
    with system_scope("test"), connection.cursor() as db:
        db.execute("SELECT close_usage_day(%s)", [DAY])
    with (
        pytest.raises(DatabaseError, match="is in no file"),
        system_scope("test"),
        connection.cursor() as db,
    ):
        db.execute("SELECT drop_usage_day(%s)", [DAY])
    archive.archive_due_days()


def test_the_app_may_neither_close_nor_drop_nor_restore_a_day():
    for function in ("close_usage_day", "drop_usage_day", "restore_usage_day"):
        with (
            psycopg.connect(environment.database_url("meterplane_app")) as app,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            app.execute(f"SELECT {function}('2021-03-04')".encode())


def test_an_altered_file_is_not_brought_back(frames, folder):
    ingest_segment(message(frames))
    archive.archive_due_days()
    (path,) = folder.glob("*.parquet")
    data = path.read_bytes()
    path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    with pytest.raises(CallerError, match="not what was recorded"):
        archive.restore_day(DAY)
    assert not attached()
    with pytest.raises(CallerError, match="in no file"):
        archive.restore_day(DAY - timedelta(days=1))


def test_kept_for_ever_and_what_is_young_stay(organisation, frames, settings):
    young = clock.now() - timedelta(days=400)
    ingest_segment(message([settle(organisation, at_ms=clock.to_ms(young))]))
    assert archive.archive_due_days() == []
    ingest_segment(message(frames))
    settings.USAGE_RETENTION_DAYS = 0
    assert archive.archive_due_days() == []
    assert partitions.ensure_partitions([DAY]) == set()


def test_sums_by_day_are_rebuilt_from_hours_that_agree_with_the_events(organisation):
    chance = random.Random(5)
    ingest_segment(message(random_settles(organisation, chance, 60)))
    before = digest_of_usage()
    first, last = clock.now().date() - timedelta(days=4), clock.now().date()
    with psycopg.connect(environment.database_url("postgres")) as admin:
        admin.execute("UPDATE usage_day SET events = events + 1, cost_nano = 0")
        admin.execute("UPDATE usage_month SET requests = 0")
    assert digest_of_usage() != before
    with tenant_scope(organisation.id):
        arrivals.hold()
        arrivals.settle(clock.now())
    call_command("rebuild_usage_days", str(first), str(last))
    assert digest_of_usage() == before
    with system_scope("test"):
        revision = UsageRevision.objects.get(tenant_id=organisation.id)
    assert revision.revision > revision.on_time  # what was billed by them is looked at again
    with psycopg.connect(environment.database_url("postgres")) as admin:
        admin.execute("UPDATE usage_hour SET cost_nano = cost_nano + 1")
    changed = digest_of_usage()
    with pytest.raises(CommandError, match="nothing was rebuilt"):
        call_command("rebuild_usage_days", str(first), str(last))
    assert digest_of_usage() == changed
