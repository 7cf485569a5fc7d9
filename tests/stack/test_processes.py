"""Signals reach exactly the process they are meant for."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest

from meterplane.stack import processes
from meterplane.stack.processes import MARKER, Identity


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def identity(pid: int) -> Identity:
    found = processes.identify(pid)
    assert found is not None
    return found


def test_a_process_is_known_by_its_start_and_not_by_its_number(
    sleeper: "subprocess.Popen[bytes]",
) -> None:
    known = identity(sleeper.pid)
    assert processes.is_alive(known)
    reused = msgspec.structs.replace(known, started_ticks=known.started_ticks - 1)
    assert not processes.is_alive(reused)
    assert not processes.send(reused, signal.SIGKILL)
    assert sleeper.poll() is None
    assert processes.send(known, signal.SIGKILL)
    assert sleeper.wait(30) == -signal.SIGKILL
    assert not processes.send(known, signal.SIGKILL)


def test_a_process_of_an_earlier_boot_is_dead(sleeper: "subprocess.Popen[bytes]") -> None:
    earlier = msgspec.structs.replace(identity(sleeper.pid), boot_id="before")
    assert not processes.is_alive(earlier)
    assert not processes.send(earlier, signal.SIGKILL)
    assert processes.session_members(earlier, marker="x") == []


def test_a_zombie_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    known = identity(process.pid)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert processes.identify(process.pid) == known
    assert not processes.is_alive(known)
    process.wait()


def test_a_leaderless_session_is_ours_only_with_our_mark() -> None:
    sleeps = "import time; print(flush=True); time.sleep(600)"
    code = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {sleeps!r}], stdout=subprocess.PIPE)\n"
        # Only a program that has begun has an environment to be read.
        "child.stdout.readline(); print(child.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=os.environ | {MARKER: "/ours"},
    ) as leader:
        assert leader.stdout is not None
        known = identity(leader.pid)
        child = identity(int(leader.stdout.readline()))
        assert processes.session_members(known, marker="/theirs") == [child]
        leader.kill()
    try:
        assert processes.session_members(known, marker="/ours") == [child]
        assert processes.session_members(known, marker="/theirs") == []
    finally:
        processes.send(child, signal.SIGKILL)


def test_a_port_belongs_to_the_process_that_listens_on_it(
    sleeper: "subprocess.Popen[bytes]",
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert processes.listens(os.getpid(), port)
        assert not processes.listens(sleeper.pid, port)
    assert not processes.listens(os.getpid(), port)
