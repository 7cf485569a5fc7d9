"""Memory is that of a page or a row group, however many rows an export has."""

import os
import subprocess
import sys
import time

import psycopg
import pytest

from tests import environment
from tests.metering.exports.written import asked, take_in
from tests.metering.segments import settle

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long, pytest.mark.timeout(900)]
ROWS = int(os.environ.get("EXPORT_ROWS", "200000"))

COPIES = """
INSERT INTO usage_event
SELECT (jsonb_populate_record(e, jsonb_build_object(
         'request_id', overlay(e.request_id::text placing lpad(to_hex(n), 12, '0') from 25)))).*
  FROM usage_event e, generate_series(1, %s) n
"""
WORKER = """
import sys, uuid, django
django.setup()
from meterplane.metering.exports.advance import step
from meterplane.metering.exports.query import stored_query
from meterplane.metering.exports.request import find_export
from meterplane.metering.exports.stream import csv_blocks
export = find_export(uuid.UUID(sys.argv[2]), uuid.UUID(sys.argv[1]))
if sys.argv[3] == "stream":
    blocks = csv_blocks(export.tenant_id, stored_query(export.query))
    print(sum(block.count(b"\\r\\n") for block in blocks) - 1)
else:
    while step(export.id):
        pass
    print(find_export(export.tenant_id, export.id).rows)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak.split()[1])
"""


def measured(export, how: str) -> tuple[int, int]:
    """Rows, and the most memory a process of its own ever had, in MiB."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(export.id), str(export.tenant_id), how],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows, peak_kib = map(int, done.stdout.split())
    print(f"{how} {export.format}: {rows} rows, {peak_kib // 1024} MiB, "
          f"{time.monotonic() - began:.1f} s")  # fmt: skip
    return rows, peak_kib // 1024


def all_ways(organisation) -> list[tuple[int, int]]:
    jobs = [asked(organisation.id, "events", kind) for kind in ("csv", "parquet")]
    return [measured(jobs[0], "stream"), *(measured(job, "job") for job in jobs)]


def test_memory_does_not_grow_with_the_rows(organisation):
    take_in([settle(organisation)])
    small = [measured(asked(organisation.id), "stream")]
    small += [
        measured(asked(organisation.id, "events", kind), "job") for kind in ("csv", "parquet")
    ]
    with psycopg.connect(environment.database_url("postgres")) as admin:
        admin.execute(COPIES, [ROWS])
    large = [measured(asked(organisation.id), "stream")]
    large += [
        measured(asked(organisation.id, "events", kind), "job") for kind in ("csv", "parquet")
    ]
    assert [rows for rows, _ in small] == [1, 1, 1]
    assert [rows for rows, _ in large] == [ROWS + 1] * 3
    for (_, before), (_, after) in zip(small, large, strict=True):
        assert after - before < 150
