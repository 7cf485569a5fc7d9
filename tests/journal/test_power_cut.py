"""What a commit acknowledged survives a power cut at any moment.

The disk below notes what the kernel has been made to promise: bytes by a sync that has returned,
names by a sync of the directory. A cut keeps that, and of everything else each page and each name
by chance, as a real disk does. Then the journal is recovered from what was kept.
"""

import asyncio
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest

from meterplane.contracts.usage import Admit, Settle
from meterplane.journal import reader
from meterplane.journal.disk import Disk
from meterplane.journal.recovery import recover
from meterplane.journal.segment import list_segments
from meterplane.journal.syncing import Done, Syncer
from meterplane.journal.writer import JournalWriter
from tests.journal.frames import admit, checkpoint, settle

PAGE_BYTES = 512  # what a disk writes whole
LANES = 8
FAST_CUTS = 60
LONG_CUTS = 600


@dataclass
class Inode:
    """A file as the page cache has it, and as the disk has it for certain."""

    cached: bytes = b""
    durable: bytes = b""
    position: int = 0
    names: list[str] = field(default_factory=list)  # it had, oldest first
    durable_names: int = 0  # how many of these the directory's syncs cover; the last one counts


class PowerCutDisk(Disk):
    """The real disk, which also knows what a power cut would leave of it."""

    def __init__(self, *, native_aio: bool) -> None:
        super().__init__(native_aio=native_aio)
        self.lock = threading.Lock()
        self.inodes: list[Inode] = []
        self.open: dict[int, Inode] = {}

    def create(self, path: Path) -> int:
        descriptor = super().create(path)
        with self.lock:
            self.open[descriptor] = Inode(names=[path.name])
            self.inodes.append(self.open[descriptor])
        return descriptor

    def allocate(self, descriptor: int, size_bytes: int) -> None:
        super().allocate(descriptor, size_bytes)
        with self.lock:
            self.open[descriptor].cached = bytes(size_bytes)

    def write_all(self, descriptor: int, data: bytes) -> None:
        super().write_all(descriptor, data)
        with self.lock:
            inode = self.open[descriptor]
            end = inode.position + len(data)
            inode.cached = inode.cached[: inode.position] + data + inode.cached[end:]
            inode.position = end

    def truncate(self, descriptor: int, length: int) -> None:
        super().truncate(descriptor, length)
        with self.lock:
            self.open[descriptor].cached = self.open[descriptor].cached[:length]

    def promise(self, descriptors: Sequence[int]) -> list[tuple[Inode, bytes]]:
        """What syncs of these files that begin now will have made durable."""
        with self.lock:
            return [(self.open[each], self.open[each].cached) for each in descriptors]

    def keep(self, promised: list[tuple[Inode, bytes]]) -> None:
        with self.lock:
            for inode, content in promised:
                inode.durable = content

    def sync(self, descriptor: int) -> None:
        super().sync(descriptor)

    def sync_length(self, descriptor: int) -> None:
        promised = self.promise([descriptor])
        super().sync_length(descriptor)
        self.keep(promised)

    def syncer(self, descriptor: int) -> Syncer:
        return PromisingSyncer(self, super().syncer(descriptor))

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        with self.lock:
            for inode in self.inodes:
                if inode.names[-1:] == [source.name]:
                    inode.names.append(target.name)

    def sync_directory(self, directory: Path) -> None:
        with self.lock:
            promised = [(inode, len(inode.names)) for inode in self.inodes]
        super().sync_directory(directory)
        with self.lock:
            for inode, count in promised:
                inode.durable_names = max(inode.durable_names, count)

    def remove(self, path: Path) -> None:
        super().remove(path)
        with self.lock:
            self.inodes = [inode for inode in self.inodes if inode.names[-1] != path.name]

    def close(self, descriptor: int) -> None:
        with self.lock:
            del self.open[descriptor]
        super().close(descriptor)

    def cut(self, home: Path, chance: random.Random) -> None:
        """Write into `home` what is left if the power goes now."""
        home.mkdir(parents=True)
        with self.lock:
            for inode in self.inodes:
                at_least = max(inode.durable_names - 1, -1)
                name = chance.randrange(at_least, len(inode.names))
                if name >= 0:
                    (home / inode.names[name]).write_bytes(left_of(inode, chance))


def left_of(inode: Inode, chance: random.Random) -> bytes:
    """Each page that differs is the old or the new one, and so is the length."""
    old, new = inode.durable, inode.cached
    length = chance.choice([len(old), len(new)])
    old, new = old.ljust(length, b"\0")[:length], new.ljust(length, b"\0")[:length]
    return b"".join(
        chance.choice([old, new])[start : start + PAGE_BYTES]
        for start in range(0, length, PAGE_BYTES)
    )


class PromisingSyncer:
    """The real syncer, whose promises are noted when it has kept them."""

    def __init__(self, disk: PowerCutDisk, real: Syncer) -> None:
        self.method = real.method
        self._disk = disk
        self._real = real

    def start(self, descriptors: Sequence[int], done: Done) -> None:
        promised = self._disk.promise(descriptors)

        def kept(error: OSError | None) -> None:
            assert error is None
            self._disk.keep(promised)
            done(error)

        self._real.start(descriptors, kept)

    def close(self) -> None:
        self._real.close()


async def live_and_cut(root: Path, chance: random.Random, method: str, cuts: int) -> int:
    """One writer under load, its power cut in thought again and again. Returns what was settled."""
    disk = PowerCutDisk(native_aio=method == "aio")
    journal = JournalWriter.open(root / "live", "g1", disk)
    assert journal.sync_method == method
    acknowledged: set[UUID] = set()
    running = True

    async def lane() -> None:
        while running:
            opened = admit()
            journal.append(opened)
            await asyncio.sleep(chance.choice([0, 0, 0.001]))
            journal.append(checkpoint(opened.request_id, 3))
            journal.append(settle(opened.request_id))
            await journal.commit()
            acknowledged.add(opened.request_id)

    lanes = [asyncio.create_task(lane()) for _ in range(LANES)]
    for number in range(cuts):
        await asyncio.sleep(chance.random() * 0.02)
        known = set(acknowledged)
        home = root / f"cut.{number}"
        disk.cut(home, chance)
        check(home, known)
    running = False
    await asyncio.gather(*lanes)
    await journal.close()
    return len(acknowledged)


def check(home: Path, acknowledged: set[UUID]) -> None:
    recover(home)
    segments = list_segments(home, spares=True)
    assert all(segment.sealed for segment in segments)
    contents = [reader.read_segment(segment.path) for segment in segments]
    frames = [frame for content in contents for frame in reader.frames_of(content)]
    settles = [frame for frame in frames if isinstance(frame, Settle)]
    billed = {frame.request_id for frame in settles if frame.status == "ok"}
    assert acknowledged <= billed
    assert len(settles) == len({frame.request_id for frame in settles})
    admitted = {frame.request_id for frame in frames if isinstance(frame, Admit)}
    assert admitted <= {frame.request_id for frame in settles}
    for content in contents:
        # Where a header was lost, nothing behind it was ever acknowledged: for quarantine.
        assert content.damage is None or content.header is None


@pytest.mark.parametrize("method", ["aio", "thread"])
@pytest.mark.parametrize("cuts", [FAST_CUTS, pytest.param(LONG_CUTS, marks=pytest.mark.long)])
@pytest.mark.timeout(600)
async def test_what_was_acknowledged_survives_a_power_cut_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, cuts: int
):
    monkeypatch.setattr("meterplane.journal.segment.SEGMENT_BYTES_MAX", 6_000)
    monkeypatch.setattr("meterplane.journal.segment.FRAME_BYTES_MAX", 4_000)
    seed = random.randrange(2**32)
    print("seed", seed)
    settled = await live_and_cut(tmp_path, random.Random(seed), method, cuts)
    assert settled > cuts  # it did work meanwhile


async def test_a_commit_that_did_not_wait_for_the_disk_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Else the test above proves nothing. In the mode `process` a cut may take what is unsealed."""
    disk = PowerCutDisk(native_aio=True)
    journal = JournalWriter.open(tmp_path / "live", "g1", disk, mode="process")
    frame = settle()
    journal.append(frame)
    await journal.commit()

    def cut_often() -> None:
        for number in range(100):
            home = tmp_path / f"cut.{number}"
            disk.cut(home, random.Random(number))
            check(home, {frame.request_id})

    with pytest.raises(AssertionError):
        cut_often()
    await journal.close()
    disk.cut(tmp_path / "sealed", random.Random(1))
    check(tmp_path / "sealed", {frame.request_id})
