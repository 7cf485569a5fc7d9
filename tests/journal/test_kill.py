"""A writer killed with SIGKILL at any point loses nothing it had appended, let alone committed.

So it is in either mode: `process` differs in what a power cut may take.
"""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from meterplane.contracts.usage import Admit, Settle
from meterplane.journal import directory, reader
from meterplane.journal.recovery import recover
from meterplane.journal.segment import list_segments

ROOT = Path(__file__).parents[2]
FAST_KILLS = 10  # of each kind
LONG_KILLS = 150
HOW = pytest.mark.parametrize(
    ("mode", "method"), [("durable", "aio"), ("durable", "thread"), ("process", "none")]
)

# One line per event, unbuffered, so that what the parent has read had happened before the kill.
WRITER = """
import asyncio, os, sys
from pathlib import Path
import meterplane.journal.segment as segment
segment.SEGMENT_BYTES_MAX = 30_000
from meterplane.journal.disk import Disk
from meterplane.journal.writer import JournalWriter
from tests.journal.frames import admit, checkpoint, settle

async def request(journal, number):
    opened = admit(reserved_nano=number)
    journal.append(opened)
    os.write(1, b"a%d\\n" % number)
    await journal.commit()
    for token in range(3):
        journal.append(checkpoint(opened.request_id, token))
        await asyncio.sleep(0)
    journal.append(settle(opened.request_id, reserved_nano=number))
    await journal.commit()
    os.write(1, b"s%d\\n" % number)

async def stream(journal, lane):
    number = lane
    while True:
        await request(journal, number)
        number += 16

async def main():
    mode, method = sys.argv[2:]
    journal = JournalWriter.open(
        Path(sys.argv[1]), "g1", Disk(native_aio=method == "aio"), mode=mode
    )
    await asyncio.gather(*(stream(journal, lane) for lane in range(16)))

asyncio.run(main())
"""


def kill_once(root: Path, chance: random.Random, *how: str) -> tuple[int, int]:
    """Run a writer, kill it, check its journal. Returns how many were admitted and settled."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root), *how], stdout=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        head = process.stdout.read(1)  # it writes; from here on any moment is as good
        time.sleep(chance.random() * 0.12)
        process.kill()
        lines = (head + process.stdout.read()).split(b"\n")[:-1]
    admitted = {int(line[1:]) for line in lines if line[:1] == b"a"}
    settled = {int(line[1:]) for line in lines if line[:1] == b"s"}

    before = list(reader.frames_under(root))
    assert admitted <= {frame.reserved_nano for frame in before if isinstance(frame, Admit)}
    assert settled <= {frame.reserved_nano for frame in before if isinstance(frame, Settle)}

    (home,) = directory.list_directories(root)
    lock = directory.claim(home)
    assert lock is not None
    recover(home)
    after = list(reader.frames_under(root))
    opened = [frame.request_id for frame in after if isinstance(frame, Admit)]
    closed = [frame.request_id for frame in after if isinstance(frame, Settle)]
    assert len(closed) == len(set(closed))
    assert set(opened) == set(closed)
    done = {frame.reserved_nano for frame in after if isinstance(frame, Settle)}
    assert admitted <= done
    left = list_segments(home, spares=True)
    assert all(segment.sealed for segment in left)
    assert all(reader.read_segment(segment.path).damage is None for segment in left)
    settles = [frame for frame in after if isinstance(frame, Settle)]
    billed = {frame.reserved_nano for frame in settles if frame.status == "ok"}
    assert settled <= billed
    return len(admitted), len(settled)


def kill_often(root: Path, times: int, *how: str) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    totals = [kill_once(root / str(number), chance, *how) for number in range(times)]
    assert sum(settled for _, settled in totals) > times  # it did work before it died
    print("admitted, settled:", [sum(column) for column in zip(*totals, strict=True)])


@HOW
def test_a_writer_killed_at_random_points_loses_nothing(tmp_path: Path, mode: str, method: str):
    kill_often(tmp_path, FAST_KILLS, mode, method)


@HOW
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_writer_killed_hundreds_of_times_loses_nothing(tmp_path: Path, mode: str, method: str):
    kill_often(tmp_path, LONG_KILLS, mode, method)
