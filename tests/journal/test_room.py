"""The disk is the bound: nothing is admitted below it, and all that runs ends."""

import uuid
from pathlib import Path

import pytest

from meterplane.journal import room
from meterplane.journal.backlog import Backlog, free_bytes, measure
from meterplane.journal.disk import Disk
from meterplane.journal.room import RoomWatch
from meterplane.journal.succession import Journal
from meterplane.journal.writer import JournalUnavailable
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from tests.journal.frames import admit, settle


def sealed(root: Path, *sizes: int) -> None:
    home = root / f"gw.{uuid7()}"
    home.mkdir(parents=True)
    for size in sizes:
        (home / f"{uuid7()}.sealed").write_bytes(bytes(size))
    (home / f"{uuid7()}.open").write_bytes(b"MPJ1")


def test_what_waits_are_the_sealed_segments_of_all_workers(tmp_path: Path):
    assert measure(tmp_path).segments == 0
    sealed(tmp_path, 10, 20)
    sealed(tmp_path, 30)
    found = measure(tmp_path, breath_s=0.0001)
    assert (found.size_bytes, found.segments) == (60, 3)
    assert 0 <= clock.now_ms() - found.oldest_at_ms < 60_000
    assert 0 <= found.oldest_s < 60
    assert found.free_bytes > 0
    assert Backlog(0, 0, 0, 1).oldest_s == 0


def test_counting_lets_others_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sealed(tmp_path, *[1] * 600)
    breaths: list[float] = []
    monkeypatch.setattr("meterplane.journal.backlog.time.sleep", breaths.append)
    measure(tmp_path, breath_s=0.5)
    assert breaths == [0.5, 0.5]


@pytest.mark.parametrize("bound", ["free", "backlog"])
async def test_at_the_bound_nothing_is_admitted_until_there_is_an_eighth_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str
):
    journal = Journal(tmp_path, "g1", Disk(), "durable")
    now = Backlog(0, 0, 0, 0)
    monkeypatch.setattr(room, "measure", lambda root, breath_s: now)
    monkeypatch.setattr(room, "COUNT_EVERY_S", 0.0)
    monkeypatch.setattr(room, "COUNT_SHARE", 0)
    watch = RoomWatch(tmp_path, journal, 800, 8000)

    async def lets_in(free: int, backlog: int) -> bool:
        nonlocal now
        now = Backlog(backlog, 1, 1, free)
        await watch.look()
        return journal.healthy

    request = uuid7()
    journal.admit(admit(request))
    if bound == "free":
        steps = [(800, 0), (799, 0), (899, 0), (900, 0), (800, 0)]
    else:
        steps = [(9000, 8000), (9000, 8001), (9000, 7001), (9000, 7000), (9000, 8000)]
    assert [await lets_in(*step) for step in steps[:2]] == [True, False]
    with pytest.raises(JournalUnavailable):
        journal.admit(admit())
    journal.settle(settle(request))
    await journal.commit(request)
    assert [await lets_in(*step) for step in steps[2:]] == [False, True, True]
    await journal.close()


async def test_files_are_counted_seldom_and_room_at_every_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    journal = Journal(tmp_path, "g1", Disk(), "durable")
    watch = RoomWatch(tmp_path, journal, 1)
    await watch.look()
    sealed(tmp_path, 10)
    monkeypatch.setattr(room, "free_bytes", lambda root: 0)
    await watch.look()
    assert journal.backlog is not None
    assert (journal.backlog.segments, journal.backlog.free_bytes) == (0, 0)
    assert not journal.healthy
    monkeypatch.setattr(room, "free_bytes", free_bytes)
    await watch.look()
    assert journal.healthy
    await journal.close()


def test_a_name_of_a_segment_is_no_directory(tmp_path: Path):
    (tmp_path / f"gw.{uuid.uuid4()}").write_bytes(b"a file")
    assert measure(tmp_path).segments == 0
