"""Killed at every step of the journal, a process loses nothing that was acknowledged.

Each place of `kernel.failpoints` in the journal is passed by one of three processes: a writer under
load, a recovery, and a journal whose disk fails and is replaced. It dies there, now and then at a
later passing; then the next recovery finds what it must.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from meterplane.contracts.usage import Admit, Settle
from meterplane.journal import directory, reader
from meterplane.journal.recovery import recover
from meterplane.journal.segment import list_segments
from meterplane.kernel.failpoints import VARIABLE

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "platform" / "meterplane" / "journal"
LONG_PASSES = 3  # at which passing it dies: this many, by chance, of each place

WRITING = """
import asyncio, os, sys
from pathlib import Path
import meterplane.journal.segment as segment
segment.SEGMENT_BYTES_MAX = 3_000
segment.FRAME_BYTES_MAX = 4_000
from meterplane.journal import succession
from meterplane.journal.recovery import recover
from meterplane.journal.succession import Journal
from tests.gateway.sick_disk import SickDisk, sick
from tests.journal.frames import admit, checkpoint, settle
from meterplane.kernel.ids import uuid7
succession.MEND_PAUSE_S = 0.01

def tell(what, request):
    os.write(1, f"{what} {request}\\n".encode())

async def lane(journal, file, number):
    for turn in range(8):
        request = uuid7()
        while not journal.healthy:
            await asyncio.sleep(0.01)
        try:
            journal.admit(admit(request))
        except succession.JournalUnavailable:
            continue
        tell("admitted", request)
        if file and number == 0 and turn in (2, 5):
            with sick(file, "EIO sync"):
                await asyncio.sleep(0.05)
        if not journal.checkpoint(checkpoint(request, 3)):
            await journal.resumed(request)
        await asyncio.sleep(0.001)
        if number == 7 and turn == 7:
            await asyncio.sleep(0.8)  # a segment grows old
        frame = settle(request)
        journal.settle(frame)
        await journal.commit(request)
        tell("settled", request)

async def main(root, file):
    journal = Journal(root, "g1", SickDisk(), "durable")
    await asyncio.gather(*(lane(journal, file, number) for number in range(8)))
    await journal.close()

file = os.environ["TEST_SICK_DISK"]
asyncio.run(main(Path(sys.argv[1]), Path(file) if sys.argv[2] == "sick" else None))
"""

RECOVERING = """
import sys
from pathlib import Path
from meterplane.journal.directory import claim, list_directories
from meterplane.journal.recovery import recover
for home in list_directories(Path(sys.argv[1])):
    assert claim(home) is not None
    recover(home)
"""


def places() -> list[str]:
    """Every failpoint of the journal, from its source."""
    found = Counter(
        name
        for path in PACKAGE.glob("*.py")
        for name in re.findall(r'failpoint\("([a-z_.]+)"\)', path.read_text())
    )
    assert set(found.values()) == {1}, "a name is one place"
    return sorted(found)


FAST = ("journal.commit.after_sync", "journal.seal.after_sync", "journal.recovery.between_settles")


def ran(program: str, *arguments: object, armed: str = "", sick: Path) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=os.environ | {VARIABLE: armed, "TEST_SICK_DISK": str(sick)},
        capture_output=True,
        cwd=ROOT,
        timeout=100,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()[-2000:]
    return done.returncode, done.stdout.decode().splitlines()


def orphaned(root: Path, sick: Path) -> list[str]:
    """A journal that a kill has left with several requests under way; what was told of it."""
    code, told = ran(WRITING, root, "well", armed="journal.append.after_write@60", sick=sick)
    assert code == -signal.SIGKILL
    return told


def die_at(place: str, passing: int, root: Path) -> bool:
    """Die there, recover, check. False where it is not passed as often."""
    sick = root / "sick"
    journals = root / "journals"
    armed = f"{place}@{passing}"
    if ".recovery." in place:
        told = orphaned(journals, sick)
        code, _ = ran(RECOVERING, journals, armed=armed, sick=sick)
    else:
        code, told = ran(WRITING, journals, "sick", armed=armed, sick=sick)
    died = code == -signal.SIGKILL
    assert ran(RECOVERING, journals, sick=sick)[0] == 0
    check(journals, told)
    return died


def check(journals: Path, told: list[str]) -> None:
    admitted = {line.split()[1] for line in told if line.startswith("admitted")}
    settled = {line.split()[1] for line in told if line.startswith("settled")}
    opened: set[str] = set()
    events: dict[str, Settle] = {}
    for home in directory.list_directories(journals):
        lock = directory.claim(home)
        assert lock is not None
        assert recover(home).settled == 0, "it was recovered already"
        os.close(lock)
        for each in list_segments(home, spares=True):
            assert each.sealed
            content = reader.read_segment(each.path)
            assert not content.damaged
            for frame in reader.frames_of(content):
                name = str(frame.request_id)
                if isinstance(frame, Admit):
                    opened.add(name)
                elif isinstance(frame, Settle):
                    assert events.setdefault(name, frame) == frame, "two ends of one request"
    assert settled <= {name for name, each in events.items() if each.status == "ok"}
    assert admitted <= opened == events.keys()
    invented = len(opened - admitted)  # told or not: at most what died between ADMIT and telling
    assert invented <= 8


@pytest.mark.parametrize("place", FAST)
def test_a_process_killed_at_a_step_of_the_journal_loses_nothing(tmp_path: Path, place: str):
    assert die_at(place, 2, tmp_path), "nobody came by that place"


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_process_killed_at_any_step_of_the_journal_loses_nothing(tmp_path: Path):
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    died: Counter[str] = Counter()
    for place in places():
        for number in range(LONG_PASSES):
            passing = 1 if number == 0 else chance.randrange(1, 30)
            root = tmp_path / f"{place}.{number}"
            root.mkdir()
            died[place] += die_at(place, passing, root)
    print("seed", seed, "n", sum(died.values()), json.dumps(died))
    assert len(died) >= 12
    assert all(died.values()), "a place that nothing passes"


def test_the_journal_has_a_place_to_die_at_every_step():
    assert set(FAST) <= set(places())
    steps = Counter(place.split(".")[1] for place in places())
    assert steps.keys() >= {"append", "commit", "spare", "seal", "recovery", "directory", "replace"}
    assert sum(steps.values()) >= 12
