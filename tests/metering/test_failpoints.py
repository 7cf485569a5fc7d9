"""A process that is killed at any step is followed by another: each event once, and all sums right.

Real processes, killed by SIGKILL at the places named here (`kernel.failpoints`).
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
from datetime import date

import msgspec
import pytest

from meterplane.journal.directory import list_directories
from meterplane.kernel.failpoints import VARIABLE
from meterplane.metering import archive, ship
from meterplane.metering.ingest import ingest_segment, ingest_segments
from meterplane.metering.models import JournalSegment
from tenants.scoping import system_scope
from tests.metering.segments import message, random_settles, settle
from tests.metering.tables import digest_of_usage, drop_days_past_keeping
from tests.metering.test_ingest import totals
from tests.metering.test_ship import admit_of, step_until_gone, written

pytestmark = pytest.mark.django_db(transaction=True)

INGEST = [
    "partitions.day.after_create",
    "ingest.segment.after_partitions",
    "ingest.segment.after_record",
    "ingest.segment.after_copy",
    "ingest.segment.after_insert",
    "ingest.segment.before_commit",
    "ingest.segment.after_commit",
]
SHIP = [
    "ship.segment.after_read",
    "ship.segment.before_send",
    "ship.segment.after_send",
    "ship.segment.before_delete",
    "ship.segment.after_delete",
]
ARCHIVE = ["after_close", "after_file", "after_record", "before_drop", "after_drop"]
FAST = {"ingest.segment.before_commit", "ingest.segment.after_commit", "ship.segment.before_delete"}
DAY = date(2021, 3, 5)

SETUP = "import sys, django, msgspec; django.setup()\n"
INGESTS = SETUP + (
    "from meterplane.metering import tasks\n"
    "for each in msgspec.json.decode(sys.stdin.buffer.read()): tasks.ingest_segments(each)\n"
)
SHIPS = SETUP + (
    "from pathlib import Path\n"
    "from meterplane.journal.directory import list_directories\n"
    "from meterplane.metering import ingest, ship\n"
    "root = Path(sys.argv[1])\n"
    "ship.Shipper(root, send=ingest.ingest_segments).run(lambda: not list_directories(root))\n"
)
ARCHIVES = SETUP + "from meterplane.metering import archive; archive.archive_due_days()\n"


def marked(names: list[str]) -> list:
    return [name if name in FAST else pytest.param(name, marks=pytest.mark.long) for name in names]


def die_at(name: str, code: str, *arguments: str, given: bytes = b"", **env: str) -> None:
    """Run `code` in a process of its own, which must not come further than `name`."""
    died = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        input=given,
        env=os.environ | {VARIABLE: name} | env,
        stderr=subprocess.PIPE,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()


@pytest.mark.parametrize("name", marked(INGEST))
def test_a_worker_killed_at_any_step_is_followed_by_another(organisation, name):
    frames = random_settles(organisation, random.Random(7), 60)
    messages = [message(frames[start : start + 20]) for start in range(0, 60, 20)]
    # Of a day nobody has used: its partition is made by who dies, or by who follows.
    drop_days_past_keeping()
    new_day_ms = (DAY - date(1970, 1, 1)).days * 86_400_000
    messages.insert(1, message([settle(organisation, at_ms=new_day_ms)]))
    # One is taken in before, by itself; then three in one transaction.
    lots = (messages[:1], messages[1:])
    given = msgspec.json.encode([msgspec.to_builtins(lot) for lot in lots])
    times = "" if name.startswith("partitions") else "@2"
    die_at(name + times, INGESTS, given=given)
    events, hours = totals()
    assert events == hours
    with system_scope("test"):
        recorded = {row.segment_id: row.inserted for row in JournalSegment.objects.all()}
    assert sum(recorded.values()) == events["events"]
    for each in (*messages, *messages):
        ingest_segment(each)
    events, hours = totals()
    assert events == hours
    assert events["events"] == 61
    assert events["cost_nano"] == sum(frame.cost_nano for frame in frames) + 13_500


@pytest.mark.parametrize("name", marked(SHIP))
def test_a_shipper_killed_at_any_step_is_followed_by_another(organisation, tmp_path, name):
    events = [settle(organisation) for _ in range(20)]
    asyncio.run(written(tmp_path, [frame for each in events for frame in (admit_of(each), each)]))
    die_at(name, SHIPS, str(tmp_path))
    found, hours = totals()
    assert found == hours
    if "delete" not in name:
        assert list_directories(tmp_path)  # what nobody has recorded is on disk
    step_until_gone(ship.Shipper(tmp_path, send=ingest_segments), tmp_path)
    found, hours = totals()
    assert found == hours
    assert found["events"] == 20


@pytest.mark.long
@pytest.mark.parametrize("moment", ARCHIVE)
def test_an_archiver_killed_at_any_step_is_followed_by_another(
    organisation, tmp_path, settings, moment
):
    drop_days_past_keeping()
    settings.ARCHIVE_DIR = tmp_path
    day_ms = (DAY - date(1970, 1, 1)).days * 86_400_000
    ingest_segment(message([settle(organisation, at_ms=day_ms + n) for n in range(500)]))
    before = digest_of_usage()
    die_at(f"archive.day.{moment}", ARCHIVES, ARCHIVE_DIR=str(tmp_path))
    if moment != "after_drop":
        assert digest_of_usage() == before
    assert archive.archive_due_days() == ([] if moment == "after_drop" else [DAY])
    assert totals()[0]["events"] == 0
    assert archive.restore_day(DAY) == 500
    assert digest_of_usage() == before
    drop_days_past_keeping()
