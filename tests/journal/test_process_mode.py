"""The mode in which a commit waits for the kernel and not for the disk."""

import asyncio
from pathlib import Path

import pytest

from meterplane.journal import reader
from meterplane.journal.segment import list_segments
from meterplane.journal.writer import JournalUnavailable, JournalWriter
from tests.conftest import eventually
from tests.journal.disks import CountingDisk, FailingDisk
from tests.journal.frames import settle


async def test_a_commit_returns_at_once_and_the_frame_is_with_the_kernel(tmp_path: Path):
    disk = CountingDisk()
    journal = JournalWriter.open(tmp_path, "g1", disk, mode="process")
    assert (journal.mode, journal.sync_method) == ("process", "none")
    frame = settle()
    journal.append(frame)
    with pytest.raises(StopIteration):
        journal.commit().send(None)
    assert list(reader.frames_under(tmp_path)) == [frame]
    assert disk.syncs == 0
    assert journal.frames_durable == 0
    await journal.close()


async def test_a_sealed_segment_is_durable_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("meterplane.journal.segment.SEGMENT_BYTES_MAX", 2_000)
    journal = JournalWriter.open(tmp_path, "g1", mode="process")
    frames = [settle(rows=number) for number in range(40)]
    for frame in frames:
        journal.append(frame)
        await asyncio.sleep(0.001)
    await eventually(lambda: journal.frames_durable > 20)
    await journal.close()
    assert journal.frames_durable == 40
    assert all(segment.sealed for segment in list_segments(journal.directory, spares=True))
    assert list(reader.frames_under(tmp_path)) == frames


async def test_a_segment_that_cannot_be_sealed_stops_the_journal(tmp_path: Path):
    disk = FailingDisk()
    journal = JournalWriter.open(tmp_path, "g1", disk, mode="process")
    journal.append(settle())
    await journal.commit()
    await eventually(lambda: journal._spare is not None)
    disk.failing = {"sync_length"}
    await eventually(lambda: not journal.healthy)
    with pytest.raises(JournalUnavailable, match="sealing failed"):
        await journal.commit()
    with pytest.raises(JournalUnavailable):
        await journal.close()


async def test_another_word_is_no_mode(tmp_path: Path):
    with pytest.raises(ValueError, match="'fast' is no mode of a journal: durable, process"):
        JournalWriter.open(tmp_path, "g1", mode="fast")  # type: ignore[arg-type]
