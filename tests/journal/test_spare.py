"""The next segment stands ready before it is needed, and a full disk is met with room to spare."""

import asyncio
import errno
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from meterplane.contracts.usage import Settle
from meterplane.journal import reader
from meterplane.journal.recovery import recover
from meterplane.journal.segment import SegmentPath, list_segments
from meterplane.journal.writer import JournalUnavailable, JournalWriter
from meterplane.kernel.ids import uuid7
from tests.conftest import eventually
from tests.journal.disks import CountingDisk, FailingDisk, SlowKeepingDisk
from tests.journal.frames import admit, checkpoint, settle

ROOT = Path(__file__).parents[2]


def spares_in(directory: Path) -> list[SegmentPath]:
    used = {segment.path for segment in list_segments(directory)}
    return [each for each in list_segments(directory, spares=True) if each.path not in used]


async def test_a_spare_is_there_from_the_start_and_is_no_segment_until_it_is_used(tmp_path: Path):
    journal = JournalWriter.open(tmp_path, "g1")
    (spare,) = spares_in(journal.directory)
    assert spare.path.stat().st_blocks * 512 >= spare.path.stat().st_size > 1024 * 1024
    assert list_segments(journal.directory) == []
    journal.append(settle())
    assert list_segments(journal.directory) == [spare]
    assert reader.read_segment(spare.path).damage is None
    await eventually(lambda: len(spares_in(journal.directory)) == 1)
    assert spares_in(journal.directory)[0].segment_id > spare.segment_id
    await journal.close()
    (sealed,) = list_segments(journal.directory, spares=True)
    assert sealed.sealed
    assert sealed.path.stat().st_blocks <= 16  # what was allocated and not used is given back


async def test_a_spare_that_is_being_made_is_no_segment(tmp_path: Path):
    segment_id = uuid7()
    SegmentPath(segment_id, tmp_path / f"{segment_id}.open", sealed=False).path.touch()
    assert list_segments(tmp_path) == []
    assert len(list_segments(tmp_path, spares=True)) == 1


async def test_an_idle_writer_leaves_nothing(tmp_path: Path):
    journal = JournalWriter.open(tmp_path, "g1")
    await journal.close()
    assert list_segments(journal.directory, spares=True) == []


async def test_commits_wait_neither_for_a_segment_being_sealed_nor_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("meterplane.journal.segment.SEGMENT_BYTES_MAX", 2_000)
    disk = SlowKeepingDisk(0.0)
    journal = JournalWriter.open(tmp_path, "g1", disk)
    journal.append(settle())
    await eventually(lambda: journal._spare is not None)
    disk.slow_s = 60.0
    frames = [settle(rows=number) for number in range(20)]  # six segments and more
    began = time.monotonic()
    for frame in frames:
        journal.append(frame)
        await journal.commit()
    assert time.monotonic() - began < disk.slow_s, "one of the twenty waited for a segment"
    assert journal.segments_to_seal > 3
    disk.hurry()
    await journal.close()
    assert list(reader.frames_under(tmp_path))[1:] == frames


async def test_segments_made_in_a_hurry_keep_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Where the spare comes too late its id is below that of the segment made instead of it."""
    monkeypatch.setattr("meterplane.journal.segment.SEGMENT_BYTES_MAX", 2_000)
    disk = SlowKeepingDisk(0.002)
    journal = JournalWriter.open(tmp_path, "g1", disk)
    frames = [settle(rows=number) for number in range(300)]
    for number, frame in enumerate(frames):
        journal.append(frame)
        if number % 3 == 0:
            await journal.commit()
        if number % 40 == 0:
            await asyncio.sleep(0.02)  # now and then a spare is in time
    await journal.commit()
    await journal.close()
    segments = list_segments(journal.directory, spares=True)
    assert all(segment.sealed for segment in segments)
    assert all(one.segment_id < other.segment_id for one, other in pairwise(segments))
    assert list(reader.frames_under(tmp_path)) == frames


async def test_a_commit_covers_the_segments_that_filled_up_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("meterplane.journal.segment.SEGMENT_BYTES_MAX", 2_000)
    synced: list[int] = []

    class Noting(CountingDisk):
        def sync(self, descriptor: int) -> None:
            synced.append(descriptor)
            super().sync(descriptor)

    journal = JournalWriter.open(tmp_path, "g1", Noting())
    for _ in range(10):
        journal.append(settle())
    written = [segment.descriptor for segment in journal._retired]
    assert len(written) >= 2
    assert journal._segment is not None
    written.append(journal._segment.descriptor)
    await journal.commit()
    assert synced[: len(written)] == written
    await journal.close()


async def test_a_full_disk_stops_admissions_and_what_is_under_way_settles(tmp_path: Path):
    disk = FailingDisk(errno.ENOSPC)
    journal = JournalWriter.open(tmp_path, "g1", disk)
    disk.failing = {"allocate"}
    opened = [admit() for _ in range(100)]
    for frame in opened:
        journal.append(frame)
    await eventually(lambda: not journal.healthy)
    with pytest.raises(JournalUnavailable, match="no room for another segment: No space left"):
        journal.append(admit())
    for frame in opened:
        journal.append(checkpoint(frame.request_id, 5))
        journal.append(settle(frame.request_id))
        await journal.commit()
    await asyncio.sleep(0.7)  # past the age at which it would be sealed: its room is kept
    for _ in range(1000):
        journal.append(settle())
    await journal.commit()
    await journal.close()
    assert len(list(reader.frames_under(tmp_path))) == 1300
    assert recover(journal.directory).settled == 0
    assert spares_in(journal.directory) == []


@pytest.mark.parametrize("operation", ["create", "allocate", "sync_length"])
async def test_once_there_is_room_again_requests_are_admitted(tmp_path: Path, operation: str):
    disk = FailingDisk(errno.ENOSPC)
    journal = JournalWriter.open(tmp_path, "g1", disk)
    disk.failing = {operation}
    journal.append(settle())
    await eventually(lambda: not journal.healthy)
    disk.failing = set()
    await eventually(lambda: journal.healthy)
    journal.append(admit())
    await journal.commit()
    await eventually(lambda: all(segment.sealed for segment in list_segments(journal.directory)))
    await journal.close()
    assert len(list(reader.frames_under(tmp_path))) == 2


async def test_when_the_last_room_is_used_the_journal_fails_and_keeps_what_was_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("meterplane.journal.segment.SEGMENT_BYTES_MAX", 20_000)
    disk = FailingDisk(errno.ENOSPC)
    journal = JournalWriter.open(tmp_path, "g1", disk)
    disk.failing = {"allocate"}
    committed = 0

    async def use_it_up() -> None:
        nonlocal committed
        while True:
            journal.append(settle(rows=committed))
            await journal.commit()
            committed += 1

    with pytest.raises(JournalUnavailable, match=r"writing failed.*No space left"):
        await use_it_up()
    assert committed >= 20_000 // 700
    with pytest.raises(JournalUnavailable):
        await journal.commit()
    with pytest.raises(JournalUnavailable):
        await journal.close()
    recover(journal.directory)
    assert [
        frame.rows for frame in reader.frames_under(tmp_path) if isinstance(frame, Settle)
    ] == list(range(committed))


def test_a_disk_without_room_for_a_spare_is_no_journal(tmp_path: Path):
    disk = FailingDisk(errno.ENOSPC)
    disk.failing = {"allocate"}
    with pytest.raises(JournalUnavailable, match="no room for another segment"):
        JournalWriter.open(tmp_path, "g1", disk)


# A limit on the size of files is the one full disk a test can have from the kernel itself.
NO_ROOM_FOR_A_SPARE = """
import asyncio, resource, sys
from pathlib import Path
from meterplane.journal.writer import JournalUnavailable, JournalWriter
from tests.journal.frames import admit, settle

async def main():
    journal = JournalWriter.open(Path(sys.argv[1]), "g1")
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
    journal.append(admit())
    for _ in range(50):
        await asyncio.sleep(0.002)
    assert not journal.healthy
    try:
        journal.append(admit())
    except JournalUnavailable as error:
        print(error)
    for number in range(800):
        journal.append(settle(rows=number))
        await journal.commit()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    while not journal.healthy:
        await asyncio.sleep(0.02)
    journal.append(admit())
    await journal.close()

asyncio.run(main())
"""


def test_a_kernel_that_allocates_no_more_lets_eight_hundred_requests_settle(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM_FOR_A_SPARE, str(tmp_path)],
        capture_output=True, text=True, timeout=30, check=True, cwd=ROOT,
    )  # fmt: skip
    assert "no room for another segment: File too large" in done.stdout
    assert len(list(reader.frames_under(tmp_path))) == 802
