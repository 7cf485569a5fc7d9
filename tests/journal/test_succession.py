"""A journal whose disk failed goes on in other files; each request is one event, whenever it fails.

Recovery and the shipper know nothing of it: what a test finds, it finds by recovering the directory
that was let go, as they do.
"""

import asyncio
import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from meterplane.contracts.usage import Admit, Checkpoint, Settle
from meterplane.journal import directory, reader, succession, writer
from meterplane.journal.disk import Disk
from meterplane.journal.recovery import recover
from meterplane.journal.succession import Journal
from meterplane.journal.writer import JournalUnavailable, JournalWriter
from meterplane.kernel.ids import uuid7
from tests.journal.disks import FailingDisk, HangingDisk
from tests.journal.frames import admit, checkpoint, settle

REQUESTS = 40
FAST_SEEDS = 1
LONG_SEEDS = 60


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(succession, "MEND_PAUSE_S", 0.01)
    monkeypatch.setattr(succession, "MEND_PAUSE_S_MAX", 0.02)
    monkeypatch.setattr(succession, "TIDY_EVERY_S", 0.01)


async def until(there: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not there():  # noqa: ASYNC110  a disk tells no events
            await asyncio.sleep(0.005)


async def recover_once_let_go(home: Path) -> None:
    """As the shipper does: as soon as it has the lock."""
    async with asyncio.timeout(20):
        while (lock := directory.claim(home)) is None:  # noqa: ASYNC110  a lock neither
            await asyncio.sleep(0.005)
    recover(home)
    os.close(lock)


class SickDisk(FailingDisk):
    """All that touches the disk fails while it is `sick`; forgets that it has been."""

    EVERYTHING = ("create", "allocate", "write", "sync", "sync_length", "rename", "sync_directory")

    def fall_ill(self, *operations: str) -> None:
        self.failing = set(operations or self.EVERYTHING)

    def get_well(self) -> None:
        self.failing = set()


def opened(root: Path, disk: Disk, mode: writer.Mode = "durable") -> Journal:
    return Journal(root, "g1", disk, mode)


def recovered(root: Path) -> tuple[list[Admit], list[Settle]]:
    """What all directories hold once the shipper has recovered them, which it can."""
    for home in directory.list_directories(root):
        lock = directory.claim(home)
        assert lock is not None, f"{home} was not let go"
        recover(home)
        os.close(lock)
    frames = list(reader.frames_under(root))
    return (
        [frame for frame in frames if isinstance(frame, Admit)],
        [frame for frame in frames if isinstance(frame, Settle)],
    )


def one_event_each(admits: list[Admit], settles: list[Settle]) -> dict[UUID, Settle]:
    """By request; whichever copy is taken in first is right, for all copies are the same."""
    events: dict[UUID, Settle] = {}
    for each in settles:
        assert events.setdefault(each.request_id, each) == each
    assert {each.request_id for each in admits} <= events.keys()
    return events


async def test_what_was_under_way_ends_where_it_began_and_what_comes_begins_elsewhere(
    tmp_path: Path,
):
    disk = SickDisk()
    journal = opened(tmp_path, disk)
    first = journal.directory
    before, under_way, ending = uuid7(), uuid7(), uuid7()
    for each in (before, under_way, ending):
        journal.admit(admit(each))
    journal.settle(settle(before))
    await journal.commit(before)
    assert journal.checkpoint(checkpoint(under_way, 3))

    disk.fall_ill()
    journal.settle(settle(ending))
    waits = asyncio.ensure_future(journal.commit(ending))
    await until(lambda: not journal.healthy)
    with pytest.raises(JournalUnavailable):
        journal.admit(admit())
    assert not journal.checkpoint(checkpoint(under_way, 4)), "nothing more may be delivered"
    goes_on = asyncio.ensure_future(journal.resumed(under_way))
    await asyncio.sleep(0.05)
    assert not waits.done()
    assert not goes_on.done()

    disk.get_well()
    await asyncio.wait_for(waits, 5)
    await asyncio.wait_for(goes_on, 5)
    await until(lambda: journal.healthy)
    assert journal.directory != first
    later = uuid7()
    journal.admit(admit(later))
    journal.settle(settle(later))
    await journal.commit(later)
    assert directory.claim(first) is None, "a request of it has not ended"
    journal.settle(settle(under_way))
    await journal.commit(under_way)
    await recover_once_let_go(first)  # though the process lives

    homes = {
        frame.request_id: home
        for home in directory.list_directories(tmp_path)
        for segment in writer_segments(home)
        for frame in reader.frames_of(reader.read_segment(segment))
        if isinstance(frame, Settle)
    }
    assert homes == dict.fromkeys((before, under_way, ending), first) | {later: journal.directory}
    await journal.close()
    events = one_event_each(*recovered(tmp_path))
    assert {each.status for each in events.values()} == {"ok"}
    assert len(events) == 4


def writer_segments(home: Path) -> list[Path]:
    return [path for path in home.iterdir() if path.suffix in (".open", ".sealed")]


async def test_a_process_that_is_killed_meanwhile_leaves_the_last_checkpoint(tmp_path: Path):
    """The failed file may have lost its pages: what is under way is written again."""
    disk = SickDisk()
    journal = opened(tmp_path, disk)
    first = journal.directory
    under_way = uuid7()
    journal.admit(admit(under_way))
    (failed,) = [path for path in writer_segments(first) if reader.read_segment(path).header]
    disk.fall_ill("sync")
    journal.checkpoint(checkpoint(under_way, 3))
    journal.settle(settle())
    await until(lambda: not journal.healthy)
    journal.checkpoint(checkpoint(under_way, 4))
    disk.get_well()
    await asyncio.wait_for(journal.resumed(under_way), 5)
    failed.write_bytes(bytes(failed.stat().st_size))  # the pages that no sync had promised

    frames = [
        frame
        for path in writer_segments(first)
        for frame in reader.frames_of(reader.read_segment(path))
        if frame.request_id == under_way
    ]
    assert [type(frame) for frame in frames] == [Admit, Checkpoint]
    assert frames[-1] == checkpoint(under_way, 4)
    await journal.close()


async def test_nothing_is_written_into_a_failed_file_nor_synced_again(tmp_path: Path):
    synced: list[int] = []

    class NotingDisk(SickDisk):
        def sync(self, descriptor: int) -> None:
            synced.append(os.fstat(descriptor).st_ino)
            super().sync(descriptor)

    disk = NotingDisk()
    journal = opened(tmp_path, disk)
    request = uuid7()
    journal.admit(admit(request))
    (failed,) = [
        path for path in writer_segments(journal.directory) if path.read_bytes()[:1] == b"M"
    ]
    disk.fall_ill("sync")
    journal.settle(settle(request))
    waits = asyncio.ensure_future(journal.commit(request))
    await until(lambda: not journal.healthy)
    content, syncs = failed.read_bytes(), synced.count(failed.stat().st_ino)
    disk.get_well()
    await asyncio.wait_for(waits, 5)
    await until(lambda: journal.healthy)
    assert failed.read_bytes() == content
    assert synced.count(failed.stat().st_ino) == syncs == 1
    await journal.close()
    assert failed.read_bytes() == content


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_disk_that_hangs_is_replaced_when_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(writer, "COMMIT_TIMEOUT_S", 0.05)
    monkeypatch.setattr(succession, "LEAVE_TIMEOUT_S", 0.05)
    disk = HangingDisk()
    journal = opened(tmp_path, disk)
    request = uuid7()
    journal.admit(admit(request))
    journal.settle(settle(request))
    waits = asyncio.ensure_future(journal.commit(request))
    await until(lambda: not journal.healthy)
    assert not waits.done()
    disk.release.set()
    await asyncio.wait_for(waits, 5)
    await until(lambda: journal.healthy)
    await journal.close()
    assert set(one_event_each(*recovered(tmp_path))) == {request}


async def test_a_directory_that_stays_unusable_is_given_up_and_its_requests_have_no_end(
    tmp_path: Path,
):
    """Its root takes another one: what comes is served, what was under way is recovery's."""

    class OneBadDirectory(SickDisk):
        bad: Path | None = None

        def create(self, path: Path) -> int:
            if path.parent == self.bad:
                raise OSError(errno.EIO, "bad block")
            return super().create(path)

    disk = OneBadDirectory()
    journal = opened(tmp_path, disk)
    request, streaming = uuid7(), uuid7()
    journal.admit(admit(streaming))
    journal.checkpoint(checkpoint(streaming, 5))
    journal.admit(admit(request))
    first = disk.bad = journal.directory
    disk.fall_ill("sync")
    journal.settle(settle(request))
    waits = asyncio.ensure_future(journal.commit(request))
    await until(lambda: not journal.healthy)
    disk.get_well()
    with pytest.raises(JournalUnavailable):
        await asyncio.wait_for(waits, 5)
    assert not journal.checkpoint(checkpoint(streaming, 6))
    with pytest.raises(JournalUnavailable):
        await journal.resumed(streaming)
    journal.settle(settle(streaming))  # what its failure would be settled with
    with pytest.raises(JournalUnavailable):
        await journal.commit(streaming)
    await until(lambda: journal.healthy)
    later = uuid7()
    journal.admit(admit(later))
    journal.settle(settle(later))
    await journal.commit(later)
    await recover_once_let_go(first)
    await journal.close()
    events = one_event_each(*recovered(tmp_path))
    assert events[later].status == "ok"
    assert events[streaming].status == "interrupted"
    assert events[streaming].tokens_out == 5


async def test_without_room_for_a_new_file_it_waits_and_leaves_no_litter(tmp_path: Path):
    disk = SickDisk(errno.ENOSPC)
    journal = opened(tmp_path, disk)
    request = uuid7()
    journal.admit(admit(request))
    disk.fall_ill("sync", "allocate")
    journal.settle(settle(request))
    waits = asyncio.ensure_future(journal.commit(request))
    await asyncio.sleep(0.3)
    assert not waits.done()
    assert names_in(tmp_path) == [journal.directory.name]
    disk.get_well()
    await asyncio.wait_for(waits, 5)
    await journal.close()
    assert set(one_event_each(*recovered(tmp_path))) == {request}


async def test_a_request_that_moves_to_another_model_is_admitted_where_it_began(tmp_path: Path):
    disk = SickDisk()
    journal = opened(tmp_path, disk)
    request = uuid7()
    journal.admit(admit(request))
    disk.fall_ill("sync")
    journal.settle(settle())
    await until(lambda: not journal.healthy)
    disk.get_well()
    await until(lambda: journal.healthy)
    journal.admit(admit(request, model="another"))
    journal.settle(settle(request, model="another"))
    await journal.commit(request)
    await journal.close()
    events = one_event_each(*recovered(tmp_path))
    assert events[request].model == "another"


async def test_held_it_admits_nothing_and_what_is_under_way_ends(tmp_path: Path):
    journal = opened(tmp_path, Disk())
    request = uuid7()
    journal.admit(admit(request))
    journal.hold("its disk is too full")
    assert not journal.healthy
    with pytest.raises(JournalUnavailable, match="too full") as refused:
        journal.admit(admit())
    assert refused.value.status == 503
    assert refused.value.retry_after_s
    journal.settle(settle(request))
    await journal.commit(request)
    journal.hold("")
    journal.admit(admit())
    await journal.close()


async def live(root: Path, chance: random.Random, mode: writer.Mode) -> dict[UUID, Settle]:
    """Requests over a disk that fails in any step, again and again; what was acknowledged."""
    disk = SickDisk(chance.choice([errno.EIO, errno.ENOSPC]))
    journal = opened(root, disk, mode)
    acknowledged: dict[UUID, Settle] = {}
    running = True

    async def request() -> None:
        request_id = uuid7()
        while running:
            try:
                journal.admit(admit(request_id))
                break
            except JournalUnavailable:
                await asyncio.sleep(0.005)
        else:
            return
        for token in range(chance.randrange(4)):
            if not journal.checkpoint(checkpoint(request_id, token)):
                await journal.resumed(request_id)
            await asyncio.sleep(chance.random() * 0.02)
        frame = settle(request_id)
        journal.settle(frame)
        if chance.random() < 0.1:  # its caller leaves, and is settled all the same
            leaving = asyncio.ensure_future(journal.commit(request_id))
            await asyncio.sleep(0)
            leaving.cancel()
        await journal.commit(request_id)
        acknowledged[request_id] = frame

    async def lane() -> None:
        for _ in range(REQUESTS // 8):
            await request()

    async def trouble() -> None:
        while running:
            await asyncio.sleep(chance.random() * 0.05)
            disk.fall_ill(*chance.sample(SickDisk.EVERYTHING, chance.randrange(1, 4)))
            await asyncio.sleep(chance.random() * 0.05)
            disk.get_well()

    troubling = asyncio.create_task(trouble())
    async with asyncio.timeout(60):
        await asyncio.gather(*(lane() for _ in range(8)))
    running = False
    await troubling
    await until(lambda: journal.healthy and not journal.directories_failed)
    assert journal.failures
    await journal.close()
    return acknowledged


@pytest.mark.parametrize("mode", ["durable", "process"])
@pytest.mark.parametrize("seeds", [FAST_SEEDS, pytest.param(LONG_SEEDS, marks=pytest.mark.long)])
@pytest.mark.timeout(600)
async def test_whenever_and_however_often_a_disk_fails_each_request_is_one_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: writer.Mode, seeds: int
):
    monkeypatch.setattr(succession, "REFUSALS_MAX", 10_000)  # it is the disk that is ill
    monkeypatch.setattr("meterplane.journal.segment.SEGMENT_BYTES_MAX", 3_000)
    monkeypatch.setattr("meterplane.journal.segment.FRAME_BYTES_MAX", 4_000)
    seed = random.randrange(2**32)
    print("seed", seed, "n", seeds)
    for number in range(seeds):
        root = tmp_path / str(number)
        acknowledged = await live(root, random.Random(seed + number), mode)
        assert len(acknowledged) == REQUESTS
        assert one_event_each(*recovered(root)) == acknowledged


async def test_a_writer_that_was_left_gives_its_directory_to_nobody(tmp_path: Path):
    disk = FailingDisk()
    failed = JournalWriter.open(tmp_path, "g1", disk)
    disk.failing.add("write")
    with pytest.raises(JournalUnavailable):
        failed.append(admit())
    await failed.leave()
    assert directory.claim(failed.directory) is None
    disk.failing.clear()
    resumed = JournalWriter.resume(failed, failed.lock_descriptor, disk)
    resumed.append(settle())
    await resumed.commit()
    await resumed.close()
    assert directory.claim(failed.directory) is not None
