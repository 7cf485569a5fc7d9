"""The shipper: what is on disk is sent until it is recorded, and deleted only then."""

import os
import signal
import subprocess
import sys

import pytest
from django.db import connections
from django.db.utils import OperationalError

from meterplane.contracts.usage import SegmentMessage
from meterplane.journal.directory import list_directories
from meterplane.journal.segment import list_segments
from meterplane.journal.writer import JournalWriter
from meterplane.metering import ship
from meterplane.metering.ingest import ingest_segment, ingest_segments
from meterplane.metering.models import UsageEvent
from tenants.scoping import tenant_scope
from tests.conftest import wait_until
from tests.contracts.test_usage import ADMIT
from tests.metering.segments import settle

pytestmark = pytest.mark.django_db(transaction=True)


def admit_of(event):
    import msgspec

    return msgspec.structs.replace(
        ADMIT,
        request_id=event.request_id,
        tenant_id=event.tenant_id,
        project_id=event.project_id,
        key_id=event.key_id,
        reserved_nano=event.reserved_nano,
    )


def stored(organisation) -> int:
    with tenant_scope(organisation.id):
        return UsageEvent.objects.count()


def files(root) -> int:
    return sum(len(list_segments(directory)) for directory in list_directories(root))


async def written(root, frames, *, close=True):
    writer = JournalWriter.open(root, "gw")
    for frame in frames:
        writer.append(frame)
    await writer.commit()
    if close:
        await writer.close()
    return writer


def step_until_gone(shipper, root):
    wait_until(lambda: (shipper.step(), not list_directories(root))[1], "an empty journal")


def in_a_thread(work, *arguments):
    """Database connections belong to threads: close this one's with it."""
    try:
        work(*arguments)
    finally:
        connections.close_all()


def test_a_closed_journal_is_taken_in_and_vanishes(organisation, tmp_path):
    import asyncio

    events = [settle(organisation) for _ in range(20)]
    asyncio.run(written(tmp_path, [frame for e in events for frame in (admit_of(e), e)]))
    shipper = ship.Shipper(tmp_path, send=ingest_segments)
    step_until_gone(shipper, tmp_path)
    assert stored(organisation) == 20


def test_a_segment_stays_until_it_is_recorded_and_is_sent_again(
    organisation, tmp_path, monkeypatch
):
    import asyncio

    asyncio.run(written(tmp_path, [settle(organisation)]))
    lost: list[SegmentMessage] = []
    shipper = ship.Shipper(tmp_path, send=lost.extend)
    for _ in range(5):
        shipper.step()
    assert len(lost) == 1
    assert files(tmp_path) == 1
    monkeypatch.setattr(ship, "RESEND_AFTER_S", 0.0)
    shipper.step()
    assert len(lost) == 2
    ingest_segment(lost[0])
    step_until_gone(shipper, tmp_path)
    assert stored(organisation) == 1


def test_a_request_that_is_still_open_keeps_its_segment(organisation, tmp_path):
    import asyncio

    event = settle(organisation)

    async def scenario() -> None:
        writer = await written(tmp_path, [admit_of(event)], close=False)
        shipper = ship.Shipper(tmp_path, send=ingest_segments)
        for _ in range(100):
            await asyncio.sleep(0.01)
            await asyncio.to_thread(in_a_thread, shipper.step)
        assert files(tmp_path) == 1
        writer.append(event)
        await writer.commit()
        await writer.close()
        await asyncio.to_thread(in_a_thread, step_until_gone, shipper, tmp_path)

    asyncio.run(scenario())
    assert stored(organisation) == 1


def test_a_dead_gateways_open_request_is_settled_and_shipped(organisation, tmp_path):
    event = settle(organisation)
    code = (
        "import asyncio, os, sys, msgspec\n"
        "from pathlib import Path\n"
        "from meterplane.contracts import usage\n"
        "from meterplane.journal.writer import JournalWriter\n"
        "async def main():\n"
        "    writer = JournalWriter.open(Path(sys.argv[1]), 'gw')\n"
        "    writer.append(usage.decode(sys.stdin.buffer.read()))\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    from meterplane.contracts import usage

    died = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        input=usage.encode(admit_of(event)),
        env=os.environ,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL
    step_until_gone(ship.Shipper(tmp_path, send=ingest_segments), tmp_path)
    with tenant_scope(organisation.id):
        row = UsageEvent.objects.get()
    assert (row.request_id, row.status, row.cost_nano) == (event.request_id, "interrupted", 0)


def test_a_shipper_that_starts_again_begins_from_the_disk(organisation, tmp_path):
    import asyncio

    asyncio.run(written(tmp_path, [settle(organisation) for _ in range(3)]))
    first = ship.Shipper(tmp_path, send=ingest_segments)
    first._send = lambda together: None
    first.step()
    for journal in first._journals.values():
        assert journal.lock is not None
        os.close(journal.lock)  # what the kernel does when a shipper dies
    step_until_gone(ship.Shipper(tmp_path, send=ingest_segments), tmp_path)
    assert stored(organisation) == 3


def test_a_database_that_is_away_is_waited_for(organisation, tmp_path, monkeypatch):
    import asyncio

    monkeypatch.setattr(ship, "AWAY_PAUSE_S", 0.01)
    asyncio.run(written(tmp_path, [settle(organisation)]))
    tries = 0

    def flaky(together: list[SegmentMessage]) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OperationalError("away")
        ingest_segments(together)

    shipper = ship.Shipper(tmp_path, send=flaky)
    shipper.run(lambda: not list_directories(tmp_path))
    assert (tries, stored(organisation)) == (3, 1)
