"""The writer: grouped commits, timely seals, and a disk that fails."""

import asyncio
import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from meterplane.journal import directory, reader, writer
from meterplane.journal.segment import list_segments
from meterplane.journal.writer import JournalUnavailable, JournalWriter
from tests.conftest import eventually
from tests.journal.disks import (
    AnsweringDisk,
    CountingDisk,
    FailingDisk,
    GatedDisk,
    HangingDisk,
    SlowKeepingDisk,
)
from tests.journal.frames import admit, settle


async def test_an_appended_frame_is_in_the_file_before_any_commit(tmp_path: Path):
    journal = JournalWriter.open(tmp_path, "g1")
    frame = admit()
    journal.append(frame)
    assert list(reader.frames_under(tmp_path)) == [frame]
    await journal.close()


async def test_callers_that_wait_together_share_one_sync(tmp_path: Path):
    disk = GatedDisk()
    journal = JournalWriter.open(tmp_path, "g1", disk)

    async def request() -> None:
        journal.append(settle())
        await journal.commit()

    disk.let_one_through()
    await asyncio.gather(*(request() for _ in range(200)))
    assert disk.syncs == 1
    first = asyncio.create_task(request())
    await eventually(lambda: disk.syncs == 2)
    late = [asyncio.create_task(request()) for _ in range(200)]
    await asyncio.sleep(0)
    disk.open()
    await asyncio.gather(first, *late)
    assert disk.syncs == 3  # 200 arrived while one sync ran and shared the next
    await journal.close()
    assert len(list(reader.frames_under(tmp_path))) == 401


async def test_commit_covers_frames_appended_while_a_sync_was_running(tmp_path: Path):
    disk = GatedDisk()
    journal = JournalWriter.open(tmp_path, "g1", disk)
    journal.append(admit())
    running = asyncio.create_task(journal.commit())
    await eventually(lambda: disk.syncs == 1)
    journal.append(admit())
    disk.open()
    await journal.commit()
    assert disk.syncs == 2  # the sync that ran already did not count for the second frame
    await running
    await journal.close()


async def test_a_caller_that_leaves_does_not_take_the_sync_of_others_with_it(tmp_path: Path):
    journal = JournalWriter.open(tmp_path, "g1", CountingDisk(sync_s=0.05))
    journal.append(admit())
    leaving = asyncio.create_task(journal.commit())
    staying = asyncio.create_task(journal.commit())
    await asyncio.sleep(0.01)
    leaving.cancel()
    await staying
    assert leaving.cancelled()
    await journal.close()


async def test_a_commit_that_finds_all_durable_does_not_wait(tmp_path: Path):
    journal = JournalWriter.open(tmp_path, "g1")
    journal.append(settle())
    await journal.commit()
    with pytest.raises(StopIteration):
        journal.commit().send(None)  # returned without having been suspended
    await journal.close()


async def test_a_round_begins_as_soon_as_the_one_before_ends(tmp_path: Path):
    disk = GatedDisk()
    journal = JournalWriter.open(tmp_path, "g1", disk)

    def arrive(count: int) -> list[asyncio.Task[None]]:
        for _ in range(count):
            journal.append(settle())
        return [asyncio.create_task(journal.commit()) for _ in range(count)]

    arrived: list[asyncio.Task[None]] = []
    for rounds, count in ((1, 1), (2, 5), (3, 4)):  # all of them while the round before runs
        arrived += arrive(count)
        if rounds > 1:
            disk.let_one_through()
        await eventually(lambda rounds=rounds: disk.syncs == rounds)
        assert not any(task.done() for task in arrived[-count:])
    disk.let_one_through()
    await asyncio.gather(*arrived)
    assert disk.syncs == 3
    disk.open()
    await journal.close()


async def test_a_journal_tells_how_far_it_is(tmp_path: Path):
    disk = CountingDisk(sync_s=0.02)
    journal = JournalWriter.open(tmp_path, "g1", disk)
    assert (journal.mode, journal.sync_method) == ("durable", "thread")
    for _ in range(3):
        journal.append(settle())
    assert (journal.frames_appended, journal.frames_durable) == (3, 0)
    (segment,) = list_segments(journal.directory)
    written = len(segment.path.read_bytes().rstrip(b"\0"))
    assert written <= journal.bytes_appended <= written + 8  # a frame may end in zeros
    await journal.commit()
    assert journal.frames_durable == 3
    assert journal.last_commit_s >= 0.02
    await eventually(lambda: journal.segments_to_seal == 1)
    await eventually(lambda: journal.segments_to_seal == 0)
    assert journal.bytes_appended == list_segments(journal.directory)[0].path.stat().st_size
    await journal.close()


async def test_a_journal_tells_how_old_and_how_much_its_lag_is(tmp_path: Path):
    disk = GatedDisk()
    journal = JournalWriter.open(tmp_path, "g1", disk)
    assert (journal.unsynced_s, journal.unsealed_bytes) == (0.0, 0)
    journal.append(settle())
    await asyncio.sleep(0.03)
    assert journal.unsynced_s >= 0.03
    assert journal.unsealed_bytes == journal.bytes_appended > 0
    began = time.monotonic()
    committing = asyncio.create_task(journal.commit())
    await eventually(lambda: disk.syncs == 1)
    journal.append(settle())  # the round under way does not cover it
    disk.open()
    await committing
    assert 0 < journal.unsynced_s <= time.monotonic() - began, "younger than the round"
    await eventually(lambda: journal.unsealed_bytes == 0)
    assert journal.unsynced_s == 0.0, "what is sealed was synced"
    await journal.close()


async def test_an_idle_journal_is_sealed_by_itself(tmp_path: Path):
    journal = JournalWriter.open(tmp_path, "g1")
    journal.append(settle())
    await journal.commit()
    await eventually(lambda: all(each.sealed for each in list_segments(journal.directory)))
    await asyncio.sleep(0.6)
    assert len(list_segments(journal.directory)) == 1  # nothing to say, no empty segments
    await journal.close()


async def test_a_full_segment_gives_way_to_the_next_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("meterplane.journal.segment.SEGMENT_BYTES_MAX", 2_000)
    journal = JournalWriter.open(tmp_path, "g1")
    frames = [settle(rows=number) for number in range(50)]
    for frame in frames:
        journal.append(frame)
    await journal.commit()
    await journal.close()
    assert len(list_segments(journal.directory)) > 5
    assert all(segment.sealed for segment in list_segments(journal.directory))
    assert list(reader.frames_under(tmp_path)) == frames


async def test_the_lock_is_held_while_the_writer_lives_and_no_longer(tmp_path: Path):
    journal = JournalWriter.open(tmp_path, "g1")
    assert directory.claim(journal.directory) is None
    await journal.close()
    descriptor = directory.claim(journal.directory)
    assert descriptor is not None
    os.close(descriptor)


async def test_a_worker_that_starts_again_has_a_directory_of_its_own(tmp_path: Path):
    first = JournalWriter.open(tmp_path, "g1")
    second = JournalWriter.open(tmp_path, "g1")
    assert first.directory != second.directory
    assert directory.worker_of(first.directory) == directory.worker_of(second.directory) == "g1"
    await first.close()
    await second.close()


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b", "x" * 101])
def test_a_name_no_directory_can_have_is_refused(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match="no worker name"):
        JournalWriter.open(tmp_path, name)


async def test_a_closed_journal_takes_nothing(tmp_path: Path):
    journal = JournalWriter.open(tmp_path, "g1")
    await journal.close()
    await journal.close()
    assert not journal.healthy
    with pytest.raises(JournalUnavailable):
        journal.append(admit())


async def refused_for_ever(journal: JournalWriter, disk: FailingDisk) -> None:
    """Nothing is touched again, and the directory is free for recovery and for another writer."""
    disk.failing = set()  # a disk that says it is well again is not believed
    with pytest.raises(JournalUnavailable):
        journal.append(settle())
    with pytest.raises(JournalUnavailable):
        await journal.commit()
    await asyncio.sleep(0.6)  # nor does the seal timer touch it
    with pytest.raises(JournalUnavailable):
        await journal.close()
    assert disk.touched == []
    descriptor = directory.claim(journal.directory)
    assert descriptor is not None
    os.close(descriptor)
    replacement = JournalWriter.open(journal.directory.parent, "g1", disk)
    replacement.append(settle())
    await replacement.commit()
    await replacement.close()


@pytest.mark.parametrize("operation", ["write", "sync"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
async def test_after_the_first_error_nothing_is_touched_again(
    tmp_path: Path, operation: str, error: int
):
    disk = FailingDisk(error)
    journal = JournalWriter.open(tmp_path, "g1", disk)
    journal.append(settle())
    await eventually(lambda: journal._spare is not None)  # what goes on beside commits is done
    disk.failing = {operation}

    async def request() -> None:
        journal.append(settle())
        await journal.commit()

    results = await asyncio.gather(*(request() for _ in range(20)), return_exceptions=True)
    assert all(isinstance(result, JournalUnavailable) for result in results)
    assert not journal.healthy
    await refused_for_ever(journal, disk)


@pytest.mark.parametrize("operation", ["create", "allocate", "sync_length", "sync_directory"])
async def test_after_an_error_while_the_next_segment_is_prepared_nothing_is_touched_again(
    tmp_path: Path, operation: str
):
    disk = FailingDisk(errno.EIO)
    journal = JournalWriter.open(tmp_path, "g1", disk)
    disk.failing = {operation}
    journal.append(settle())
    await eventually(lambda: not journal.healthy)
    disk.touched.clear()  # `append` may have written while the thread was failing
    with pytest.raises(JournalUnavailable, match="preparing a segment failed"):
        await journal.commit()
    await refused_for_ever(journal, disk)


@pytest.mark.parametrize("operation", ["truncate", "sync_length", "rename", "sync_directory"])
async def test_after_an_error_while_a_segment_is_sealed_nothing_is_touched_again(
    tmp_path: Path, operation: str
):
    disk = FailingDisk()
    journal = JournalWriter.open(tmp_path, "g1", disk)
    frame = settle()
    journal.append(frame)
    await journal.commit()
    await eventually(lambda: journal._spare is not None)
    disk.failing = {operation}
    await eventually(lambda: not journal.healthy)
    with pytest.raises(JournalUnavailable, match="sealing failed"):
        await journal.commit()
    await refused_for_ever(journal, disk)
    assert frame in list(reader.frames_under(tmp_path))


async def test_an_error_the_kernel_reports_of_a_sync_stops_the_journal_and_is_not_retried(
    tmp_path: Path,
):
    disk = AnsweringDisk()
    journal = JournalWriter.open(tmp_path, "g1", disk)
    assert journal.sync_method == "aio"
    journal.append(settle())
    await journal.commit()
    disk.error = OSError(errno.EIO, "Input/output error")
    journal.append(settle())
    before = disk.starts
    with pytest.raises(JournalUnavailable, match=r"syncing failed.*Input/output"):
        await journal.commit()
    disk.error = None
    with pytest.raises(JournalUnavailable):
        await journal.commit()
    with pytest.raises(JournalUnavailable):
        await journal.close()
    assert disk.starts == before + 1


async def test_a_kernel_that_does_not_report_is_a_failed_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writer, "COMMIT_TIMEOUT_S", 0.05)
    disk = AnsweringDisk()
    journal = JournalWriter.open(tmp_path, "g1", disk)
    disk.silent = True
    journal.append(settle())
    with pytest.raises(JournalUnavailable, match="did not answer"):
        await journal.commit()
    with pytest.raises(JournalUnavailable):
        await journal.close()


async def test_a_disk_that_does_not_finish_a_segment_is_a_failed_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writer, "COMMIT_TIMEOUT_S", 0.5)
    disk = SlowKeepingDisk(0.0)
    journal = JournalWriter.open(tmp_path, "g1", disk)
    disk.slow_s = 1.5
    journal.append(settle())
    await journal.commit()  # the room for it was ready
    assert journal.healthy
    await eventually(lambda: not journal.healthy)
    with pytest.raises(JournalUnavailable, match="did not answer"):
        await journal.close()


async def test_a_disk_that_does_not_answer_is_a_failed_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writer, "COMMIT_TIMEOUT_S", 0.05)
    disk = HangingDisk()
    journal = JournalWriter.open(tmp_path, "g1", disk)
    journal.append(settle())
    with pytest.raises(JournalUnavailable, match="did not answer"):
        await journal.commit()
    assert not journal.healthy
    with pytest.raises(JournalUnavailable):
        await journal.close()
    disk.release.set()


async def test_a_disk_that_refuses_the_directory_is_unavailable(tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(JournalUnavailable):
        JournalWriter.open(tmp_path / "file", "g1")


FILL_A_REAL_FILE_LIMIT = """
import asyncio, resource, sys
from pathlib import Path
from meterplane.journal.writer import JournalUnavailable, JournalWriter
from tests.journal.frames import settle

async def main():
    journal = JournalWriter.open(Path(sys.argv[1]), "g1")
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    committed = 0
    while True:
        try:
            journal.append(settle(rows=committed))
            await journal.commit()
        except JournalUnavailable as error:
            assert not journal.healthy
            print(committed, error)
            return
        committed += 1

asyncio.run(main())
"""


def test_a_file_the_kernel_refuses_to_grow_keeps_all_that_was_committed(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", FILL_A_REAL_FILE_LIMIT, str(tmp_path)],
        capture_output=True, text=True, timeout=30, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    committed, message = done.stdout.split(maxsplit=1)
    assert "File too large" in message
    assert int(committed) > 10
    assert [getattr(frame, "rows", None) for frame in reader.frames_under(tmp_path)] == list(
        range(int(committed))
    )


def test_a_directory_becomes_visible_only_with_its_lock_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Else the shipper could recover a journal in the moment before its writer locks it."""
    seen = []
    real = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        seen.append(list(directory.list_directories(tmp_path)))
        real(descriptor, operation)

    monkeypatch.setattr("meterplane.journal.directory.fcntl.flock", flock)
    _, descriptor = directory.create(tmp_path, "g1", CountingDisk())
    os.close(descriptor)
    assert seen == [[]]
    assert len(directory.list_directories(tmp_path)) == 1
