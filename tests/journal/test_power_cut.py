"""What a commit acknowledged survives a power cut at any moment.

The disk below notes what the kernel has been made to promise: bytes by a sync that has returned,
names by a sync of the directory. A cut keeps that, and of everything else each page and each name
by chance, as a real disk does; of half of the files it flips a bit behind what was promised, or
tears them there. Then the journal is recovered from what was kept.
"""

import asyncio
import random
import shutil
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest

from meterplane.contracts import usage
from meterplane.contracts.usage import Admit, Frame, Settle
from meterplane.journal import reader
from meterplane.journal.disk import Disk
from meterplane.journal.recovery import recover
from meterplane.journal.segment import encode_segment, list_segments
from meterplane.journal.syncing import Done, Syncer
from meterplane.journal.writer import JournalWriter
from meterplane.kernel.ids import uuid7
from tests.journal.frames import admit, checkpoint, settle

PAGE_BYTES = 512  # what a disk writes whole
DAMAGED: Counter[str] = Counter()
LANES = 8
FAST_CUTS = 60
LONG_CUTS = 500  # of each way of syncing: 1,000
CUTS_OF_ONE_LIFE = 20  # each copies all that was written until then


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
    left = b"".join(
        chance.choice([old, new])[start : start + PAGE_BYTES]
        for start in range(0, length, PAGE_BYTES)
    )
    promised = first_difference(old, new)
    written = len(new.rstrip(b"\0"))
    how = chance.randrange(4)
    if promised < min(written, len(left)) and how < 2:
        at = chance.randrange(promised, min(written, len(left)))
        if how == 0:
            return left[:at]
        return left[:at] + bytes([left[at] ^ 1 << chance.randrange(8)]) + left[at + 1 :]
    return left


def first_difference(old: bytes, new: bytes) -> int:
    """Where two of one length begin to differ; their length if they do not."""
    for start in range(0, len(old), PAGE_BYTES):
        if old[start : start + PAGE_BYTES] != new[start : start + PAGE_BYTES]:
            return next(at for at in range(start, len(old)) if old[at] != new[at])
    return len(old)


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
    written: set[bytes] = set()
    running = True

    def append(frame: Frame) -> None:
        written.add(usage.encode(frame))
        journal.append(frame)

    async def lane() -> None:
        while running:
            opened = admit()
            append(opened)
            await asyncio.sleep(chance.choice([0, 0, 0.001]))
            append(checkpoint(opened.request_id, 3))
            append(settle(opened.request_id))
            await journal.commit()
            acknowledged.add(opened.request_id)

    damaged = 0
    lanes = [asyncio.create_task(lane()) for _ in range(LANES)]
    for number in range(cuts):
        await asyncio.sleep(chance.random() * 0.02)
        known = set(acknowledged)
        home = root / f"cut.{number}"
        disk.cut(home, chance)
        damaged += check(home, known, written)
        shutil.rmtree(home)
    running = False
    await asyncio.gather(*lanes)
    await journal.close()
    DAMAGED[method] += damaged
    return len(acknowledged)


def check(home: Path, acknowledged: set[UUID], written: set[bytes]) -> bool:
    """True if whole frames were found behind damage."""
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
    # Whatever was altered is told from what was written: nothing is invented, or read as it is not.
    for content in contents:
        for payload in content.payloads:
            assert payload.body in written or is_orphans(payload.body)
        # What a cut left at the end is gone; only damage before whole frames is kept, as it was.
        assert all(
            stretch.kind == "header" or any(each.offset >= stretch.end for each in content.payloads)
            for stretch in content.damaged
        )
    return any(content.damaged for content in contents)


def is_orphans(payload: bytes) -> bool:
    """What recovery settled by itself."""
    frame = usage.decode(payload)
    return isinstance(frame, Settle) and frame.status == "interrupted"


@pytest.mark.parametrize("method", ["aio", "thread"])
@pytest.mark.parametrize("cuts", [FAST_CUTS, pytest.param(LONG_CUTS, marks=pytest.mark.long)])
@pytest.mark.timeout(600)
async def test_what_was_acknowledged_survives_a_power_cut_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, cuts: int
):
    monkeypatch.setattr("meterplane.journal.segment.SEGMENT_BYTES_MAX", 6_000)
    monkeypatch.setattr("meterplane.journal.segment.FRAME_BYTES_MAX", 4_000)
    seed = random.randrange(2**32)
    print("seed", seed, "n", cuts)
    chance = random.Random(seed)
    settled = sum(
        [
            await live_and_cut(tmp_path / str(life), chance, method, CUTS_OF_ONE_LIFE)
            for life in range(cuts // CUTS_OF_ONE_LIFE)
        ]
    )
    print("settled", settled, "cuts with whole frames behind damage", DAMAGED[method])
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
            check(home, {frame.request_id}, {usage.encode(frame)})

    with pytest.raises(AssertionError):
        cut_often()
    await journal.close()
    disk.cut(tmp_path / "sealed", random.Random(1))
    check(tmp_path / "sealed", {frame.request_id}, {usage.encode(frame)})


@pytest.mark.parametrize("behind", [b"", bytes(5000), b"\1" + bytes(5000)])
def test_pages_lost_before_whole_frames_hide_none_of_them(tmp_path: Path, behind: bytes):
    """A cut may keep a later page and lose an earlier one. Nothing there was acknowledged: a sync
    that covers a frame covers all before it. So what is whole is usage, and none of it is doubled.
    """
    frames = [admit(), admit(), settle(), admit()]
    frames.append(checkpoint(frames[3].request_id, 7))
    data = bytearray(encode_segment(segment_id := uuid7(), "g1", frames))
    starts = [payload.offset for payload in reader.parse_segment(bytes(data)).payloads]
    data[starts[1] : starts[2]] = bytes(starts[2] - starts[1])
    home = tmp_path / f"g1.{uuid7()}"
    home.mkdir()
    (home / f"{segment_id}.open").write_bytes(data + behind)
    done = recover(home)
    assert (done.settled, done.cut_bytes) == (2, len(behind.strip(b"\0")))
    found = [reader.read_segment(each.path) for each in list_segments(home)]
    events = [f for content in found for f in reader.frames_of(content) if isinstance(f, Settle)]
    assert [(each.request_id, each.status, each.tokens_out) for each in events] == [
        (frames[2].request_id, "ok", 20),
        (frames[0].request_id, "interrupted", 0),
        (frames[3].request_id, "interrupted", 7),
    ]
    (lost,) = found[0].damaged
    assert (lost.offset, lost.end) == (starts[1], starts[2])
    assert recover(home).settled == 0
