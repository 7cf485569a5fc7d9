"""How syncs reach the disk: by the kernel's own means where it has them, else by a thread."""

import asyncio
import ctypes
import errno
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meterplane.journal import aio
from meterplane.journal.aio import AioSyncer
from meterplane.journal.syncing import Syncer, ThreadSyncer

ROOT = Path(__file__).parents[2]


def by_thread(descriptor: int) -> Syncer:
    return ThreadSyncer(os.fdatasync)


both = pytest.mark.parametrize("syncer_of", [AioSyncer, by_thread])


@pytest.fixture
def files(tmp_path: Path) -> Iterator[list[int]]:
    descriptors = [os.open(tmp_path / str(n), os.O_WRONLY | os.O_CREAT) for n in range(150)]
    yield descriptors
    for descriptor in descriptors:
        os.close(descriptor)


async def synced(syncer: Syncer, descriptors: list[int]) -> OSError | None:
    answers: list[OSError | None] = []
    answered = asyncio.Event()

    def done(error: OSError | None) -> None:
        answers.append(error)
        answered.set()

    syncer.start(descriptors, done)
    assert answers == []  # it did not wait for the disk
    await asyncio.wait_for(answered.wait(), 10)
    await asyncio.sleep(0.01)
    assert len(answers) == 1
    return answers[0]


@both
@pytest.mark.parametrize("count", [1, 3, 64, 65, 150])
async def test_any_number_of_files_is_synced_and_told_once(
    files: list[int], syncer_of: Callable[[int], Syncer], count: int
):
    syncer = syncer_of(files[0])
    for _ in range(20):
        for descriptor in files[:count]:
            os.write(descriptor, b"x" * 500)
        assert await synced(syncer, files[:count]) is None
    syncer.close()


@both
async def test_a_file_that_cannot_be_synced_is_an_error(
    files: list[int], syncer_of: Callable[[int], Syncer]
):
    syncer = syncer_of(files[0])
    inlet, outlet = os.pipe()
    error = await synced(syncer, [files[0], outlet])
    assert error is not None
    assert error.errno == errno.EINVAL
    assert await synced(syncer, [files[0]]) is None  # told once, of the sync it belongs to
    syncer.close()
    os.close(inlet)
    os.close(outlet)


async def test_a_submission_of_which_nothing_was_taken_raises_and_leaves_the_syncer_whole(
    files: list[int],
):
    syncer = AioSyncer(files[0])
    with pytest.raises(OSError, match="Bad file descriptor"):
        syncer.start([999_999], lambda error: None)
    assert await synced(syncer, files[:2]) is None
    syncer.close()


def test_a_negative_result_is_the_error_of_that_sync():
    # struct io_event: data u64, obj u64, res s64, res2 s64
    results = [0, -errno.EIO, -errno.ENOSPC]
    data = b"".join(
        bytes(16) + result.to_bytes(8, "little", signed=True) + bytes(8) for result in results
    )
    events = ctypes.create_string_buffer(data, len(data))
    assert aio.first_error(events, 1) is None
    error = aio.first_error(events, 3)
    assert error is not None
    assert error.errno == errno.EIO


def test_a_machine_whose_call_numbers_are_unknown_is_refused(
    files: list[int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(platform, "machine", lambda: "s390x")
    with pytest.raises(OSError, match="no native AIO"):
        AioSyncer(files[0])


# A container's profile may forbid a call: seccomp does it to this process as it would there.
FORBIDDEN = """
import asyncio, ctypes, platform, struct, sys
from pathlib import Path
from meterplane.journal.aio import _NUMBERS
from meterplane.journal.writer import JournalWriter
from tests.journal.frames import settle

SETUP, _, SUBMIT, _ = _NUMBERS[platform.machine()]

def forbid(number):
    program = b"".join(struct.pack("<HBBI", *line) for line in (
        (0x20, 0, 0, 0),  # load the number of the call
        (0x15, 0, 1, number),  # is it this one?
        (0x06, 0, 0, 0x00050000 | 1),  # then EPERM
        (0x06, 0, 0, 0x7FFF0000),  # else go on
    ))
    lines = ctypes.create_string_buffer(program, len(program))
    filter = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", 4, ctypes.addressof(lines)), 16)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, filter) == 0, ctypes.get_errno()  # PR_SET_SECCOMP, a filter

async def main(what):
    if what in ("setup", "submit"):
        forbid(SETUP if what == "setup" else SUBMIT)
    journal = JournalWriter.open(Path(sys.argv[1]), "g1")
    methods = [journal.sync_method]
    for number in range(20):
        if what == "later" and number == 10:
            forbid(SUBMIT)
        journal.append(settle())
        await journal.commit()
        assert journal.frames_durable == number + 1
    methods.append(journal.sync_method)
    await journal.close()
    print(*methods)

asyncio.run(main(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("forbidden", "methods"),
    [
        ("nothing", "aio aio"),
        ("setup", "thread thread"),
        ("submit", "thread thread"),
        ("later", "aio thread"),
    ],
)
def test_where_the_kernel_refuses_a_thread_takes_over(tmp_path: Path, forbidden: str, methods: str):
    done = subprocess.run(
        [sys.executable, "-c", FORBIDDEN, str(tmp_path), forbidden],
        capture_output=True, text=True, timeout=30, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == methods
