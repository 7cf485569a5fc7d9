"""What a dead writer left: torn tails, orphans, and a recovery that is itself killed."""

import errno
import os
import random
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from meterplane.contracts.usage import Admit, Frame, Settle
from meterplane.journal import directory, reader
from meterplane.journal.recovery import recover
from meterplane.journal.segment import encode_segment, list_segments
from meterplane.journal.writer import JournalWriter
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from tests.journal.disks import FailingDisk
from tests.journal.frames import admit, checkpoint, settle


def dead_journal(root: Path, *segments: list, sealed: int = 0) -> Path:
    """A directory with these segments, the first `sealed` of them sealed, and no writer."""
    home = root / f"g1.{uuid7()}"
    home.mkdir()
    for number, frames in enumerate(segments):
        segment_id = uuid7(clock.now_ms() + number)
        suffix = "sealed" if number < sealed else "open"
        (home / f"{segment_id}.{suffix}").write_bytes(encode_segment(segment_id, "g1", frames))
    return home


def settles(home: Path) -> list[Settle]:
    frames = [
        frame
        for segment in list_segments(home)
        for frame in reader.frames_of(reader.read_segment(segment.path))
    ]
    return [frame for frame in frames if isinstance(frame, Settle)]


def test_a_stream_killed_under_way_is_settled_from_its_last_checkpoint(tmp_path: Path):
    request = uuid7()
    home = dead_journal(
        tmp_path, [admit(request), checkpoint(request, 3)], [checkpoint(request, 8)], sealed=1
    )
    with clock.frozen(datetime(2026, 11, 24, 12, tzinfo=UTC)):
        done = recover(home)
    assert done.settled == 1
    (orphan,) = settles(home)
    assert (orphan.request_id, orphan.status, orphan.provenance) == (
        request, "interrupted", "checkpoint",
    )  # fmt: skip
    assert (orphan.tokens_in, orphan.tokens_out) == (10, 8)
    # 10 in x 150,000 + 8 out x 600,000 + 1 request x 1,000,000 pico = 7,300,000 pico
    assert orphan.cost_nano == 7_300
    assert all(segment.sealed for segment in list_segments(home))


def test_a_request_that_delivered_nothing_is_free(tmp_path: Path):
    home = dead_journal(tmp_path, [admit()])
    recover(home)
    (orphan,) = settles(home)
    assert (orphan.requests, orphan.cost_nano) == (0, 0)


def test_settled_requests_are_left_alone(tmp_path: Path):
    first, second = uuid7(), uuid7()
    home = dead_journal(
        tmp_path, [admit(first), admit(second)], [settle(second), settle(first)], sealed=1
    )
    assert recover(home).settled == 0
    assert [frame.request_id for frame in settles(home)] == [second, first]


def test_recovering_again_settles_nothing_twice(tmp_path: Path):
    home = dead_journal(tmp_path, [admit(), admit(), admit()])
    assert recover(home).settled == 3
    before = {segment.path: segment.path.read_bytes() for segment in list_segments(home)}
    assert recover(home).settled == 0
    assert {segment.path: segment.path.read_bytes() for segment in list_segments(home)} == before


@pytest.mark.parametrize("allocated", [0, 4096])
def test_every_cut_of_an_open_segment_recovers_all_whole_frames(tmp_path: Path, allocated: int):
    request, other = uuid7(), uuid7()
    frames: list[Frame] = [admit(request), checkpoint(request, 4), settle(other, rows=7)]
    data = encode_segment(uuid7(), "g1", frames)
    for cut in range(0, len(data) + 1, 3):
        home = tmp_path / f"g1.{uuid7()}"
        home.mkdir()
        path = home / f"{uuid7()}.open"
        path.write_bytes(data[:cut] + bytes(allocated))
        whole = list(reader.frames_of(reader.parse_segment(data[:cut])))
        done = recover(home)
        assert done.cut_bytes <= cut
        left = list_segments(home)
        contents = [reader.read_segment(segment.path) for segment in left]
        assert all(content.damage is None for content in contents)
        kept = [frame for content in contents for frame in reader.frames_of(content)]
        assert kept[: len(whole)] == whole
        assert done.settled == (1 if frames[0] in whole else 0)
        shutil.rmtree(home)


@pytest.mark.parametrize("operation", ["create", "write", "sync", "rename", "sync_directory"])
def test_a_recovery_stopped_half_way_is_finished_by_the_next(tmp_path: Path, operation: str):
    requests = [uuid7() for _ in range(5)]
    home = dead_journal(tmp_path, [admit(request) for request in requests])
    disk = FailingDisk(errno.ENOSPC)
    disk.failing = {operation}
    with pytest.raises(OSError, match="No space"):
        recover(home, disk)
    recover(home)
    assert sorted(frame.request_id for frame in settles(home)) == sorted(requests)


def test_orphans_beyond_one_segment_take_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("meterplane.journal.segment.SEGMENT_BYTES_MAX", 2_000)
    requests = [uuid7() for _ in range(40)]
    home = dead_journal(tmp_path, [admit(request) for request in requests])
    recover(home)
    assert len(list_segments(home)) > 5
    assert [frame.request_id for frame in settles(home)] == requests


def test_a_segment_whose_header_changed_is_kept_for_quarantine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    home = dead_journal(tmp_path, [settle()])
    (segment,) = list_segments(home)
    altered = bytearray(segment.path.read_bytes())
    altered[5] ^= 1
    segment.path.write_bytes(altered)
    recover(home)
    (kept,) = list_segments(home)
    assert kept.sealed
    assert kept.path.read_bytes() == altered
    assert "unreadable" in caplog.text


def test_the_zeros_an_open_segment_was_allocated_with_alarm_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    home = dead_journal(tmp_path, [settle()], [])
    first, second = list_segments(home)
    whole = [first.path.read_bytes(), second.path.read_bytes()]
    for segment in (first, second):
        segment.path.write_bytes(segment.path.read_bytes() + bytes(100_000))
        assert reader.read_segment(segment.path).damage is None
    assert recover(home).cut_bytes == 0
    assert [segment.path.read_bytes() for segment in list_segments(home)] == whole
    assert not [record for record in caplog.records if record.levelname != "INFO"]


def test_zeros_in_a_sealed_segment_are_damage(tmp_path: Path):
    home = dead_journal(tmp_path, [settle()], sealed=1)
    (segment,) = list_segments(home)
    length = segment.path.stat().st_size
    segment.path.write_bytes(segment.path.read_bytes() + bytes(512))
    damage = reader.read_segment(segment.path).damage
    assert damage is not None
    assert (damage.offset, damage.kind) == (length, "length")


def test_a_spare_is_removed_and_what_only_begins_like_one_is_kept(tmp_path: Path):
    home = dead_journal(tmp_path, [settle()])
    (used,) = list_segments(home)
    spare, altered = home / f"{uuid7()}.open", home / f"{uuid7()}.open"
    spare.write_bytes(bytes(70_000))
    altered.write_bytes(bytes(4096) + used.path.read_bytes())  # a page the disk forgot
    assert list_segments(home) == [used]
    recover(home)
    kept = {segment.path for segment in list_segments(home, spares=True)}
    assert kept == {used.path.with_suffix(".sealed"), altered.with_suffix(".sealed")}


def test_recovery_writes_behind_the_newest_segment_even_if_the_clock_stepped_back(tmp_path: Path):
    request = uuid7()
    home = dead_journal(tmp_path, [admit(request)])
    with clock.frozen(datetime(2020, 1, 1, tzinfo=UTC)):
        recover(home)
    assert [
        type(frame)
        for segment in list_segments(home)
        for frame in reader.frames_of(reader.read_segment(segment.path))
    ] == [Admit, Settle]


async def test_a_writer_whose_disk_failed_is_recovered_while_the_process_lives(tmp_path: Path):
    disk = FailingDisk()
    journal = JournalWriter.open(tmp_path, "g1", disk)
    request = uuid7()
    journal.append(admit(request))
    await journal.commit()
    disk.failing = {"write"}
    with pytest.raises(Exception, match="writing failed"):
        journal.append(settle(request))
    with pytest.raises(Exception, match="writing failed"):
        await journal.close()
    lock = directory.claim(journal.directory)
    assert lock is not None
    assert recover(journal.directory).settled == 1
    os.close(lock)


def test_random_journals_cut_anywhere_come_back_whole(tmp_path: Path):
    """Every power cut keeps a prefix of what was written; every prefix must recover."""
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    for _ in range(150):
        requests = [uuid7() for _ in range(chance.randrange(1, 6))]
        frames: list = [admit(request) for request in requests]
        for _ in range(chance.randrange(8)):
            frames.append(checkpoint(chance.choice(requests), chance.randrange(100)))
        done = [request for request in requests if chance.random() < 0.5]
        frames += [settle(request) for request in done]
        data = encode_segment(uuid7(), "g1", frames)
        home = tmp_path / f"g1.{uuid7()}"
        home.mkdir()
        cut = chance.randrange(len(data) + 1)
        tail = chance.choice([b"", bytes(512), bytes(70_000), bytes(99) + chance.randbytes(99)])
        (home / f"{uuid7()}.open").write_bytes(data[:cut] + tail)
        whole = list(reader.frames_of(reader.parse_segment(data[:cut])))
        recover(home)
        admitted = [frame.request_id for frame in whole if isinstance(frame, Admit)]
        assert sorted(frame.request_id for frame in settles(home)) == sorted(admitted)
        contents = [reader.read_segment(segment.path) for segment in list_segments(home)]
        for content in contents:
            # Garbage where a header should stand is no torn write: kept for quarantine.
            assert content.damage is None or content.header is None
        shutil.rmtree(home)
