"""The supervisor with real, tiny processes."""

import json
import os
import signal
import socket
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from meterplane.stack import probes, processes
from tests.stack.rig import is_ready, pid_of, supervised, wait_for


@pytest.fixture
def var(tmp_path: Path) -> Path:
    return tmp_path / "var"


def test_components_start_in_order_and_stop_in_reverse(var: Path, tmp_path: Path) -> None:
    story = tmp_path / "story"
    code = (
        "import signal, sys, time\n"
        f"def say(what): open({str(story)!r}, 'a').write(what + '\\n')\n"
        "signal.signal(signal.SIGTERM, lambda *_: (say('NAME stops'), sys.exit(0)))\n"
        "say('NAME starts'); print('listening', flush=True); time.sleep(600)"
    )
    script = "\n".join(
        [
            "heard = lambda running: b'listening' in running.log.read_bytes()",
            "components = [",
            f"  python('database', {code.replace('NAME', 'database')!r}, ready=heard),",
            "  python('migrate', 'pass', kind='step', after=('database',)),",
            f"  python('web', {code.replace('NAME', 'web')!r}, ready=heard, after=('migrate',)),",
            "]",
        ]
    )
    with supervised(var, script) as process:
        found = wait_for(var, is_ready)
        assert found.component("migrate").state == "done"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert story.read_text().split("\n")[:-1] == [
        "database starts",
        "web starts",
        "web stops",
        "database stops",
    ]


def test_a_crashed_component_is_restarted_with_growing_pauses(var: Path, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    code = (
        "import sys, time\n"
        f"open({str(starts)!r}, 'a').write(f'{{time.monotonic()}}\\n')\n"
        f"n = len(open({str(starts)!r}).readlines())\n"
        "time.sleep(0.3 if n == 1 else 0.0 if n < 4 else 600); sys.exit(3)"
    )
    script = (
        "up = lambda running: running.uptime_s > 0.1\n"
        f"components = [python('flaky', {code!r}, ready=up), python('calm', STAYS)]"
    )
    with supervised(var, script):
        first = wait_for(var, is_ready)
        again = wait_for(var, lambda found: found.component("flaky").restarts == 3)
        again = wait_for(var, lambda found: found.component("flaky").state == "ready")
        assert again.component("flaky").last_exit == "exited with status 3"
        assert pid_of(again, "calm") == pid_of(first, "calm")
        assert json.loads((var / "published.json").read_text())["flaky"] == pid_of(again, "flaky")
    at = [float(line) for line in starts.read_text().splitlines()]
    pauses = [later - earlier for earlier, later in pairwise(at)]
    assert pauses[1] >= 0.4
    assert pauses[2] >= 0.8


def test_a_component_that_fails_to_start_is_named_with_the_end_of_its_log(var: Path) -> None:
    script = (
        "components = [python('calm', STAYS), python('web',"
        " \"print('no such table'); raise SystemExit(4)\", ready=lambda running: False)]"
    )
    with supervised(var, script) as process:
        assert process.wait(30) == 1
    found = wait_for(var, lambda found: found.phase == "failed")
    assert found.failure is not None
    assert found.failure.component == "web"
    assert "status 4" in found.failure.reason
    assert found.failure.tail == ["no such table"]
    assert found.failure.log == str(var / "logs" / "web.log")
    assert found.component("calm").process is None


def test_a_component_that_never_answers_fails_the_start(var: Path) -> None:
    script = "components = [python('deaf', STAYS, ready=lambda running: False, ready_within_s=0.5)]"
    with supervised(var, script) as process:
        assert process.wait(30) == 1
    found = wait_for(var, lambda found: found.phase == "failed")
    assert found.failure is not None
    assert "not ready within" in found.failure.reason


def test_a_background_step_that_fails_does_not_fail_the_stack(var: Path) -> None:
    script = (
        "components = [python('web', STAYS),"
        " python('demo', 'raise SystemExit(1)', kind='step', background=True, after=('web',))]"
    )
    with supervised(var, script):
        found = wait_for(var, lambda found: found.component("demo").state == "failed")
        found = wait_for(var, is_ready)
        assert found.component("web").state == "ready"


def test_a_component_that_ignores_the_request_to_stop_is_killed(var: Path) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    script = (
        f"components = [python('stubborn', {code!r}, stop_within_s=0.5,"
        " ready=lambda running: running.uptime_s > 0.3)]"
    )
    with supervised(var, script) as process:
        found = wait_for(var, is_ready)
        victim = found.component("stubborn").process
        assert victim is not None
        process.terminate()
        assert process.wait(30) == 0
    assert not processes.is_alive(victim)


def test_what_a_killed_component_left_behind_is_killed_before_it_starts_again(
    var: Path, tmp_path: Path
) -> None:
    note = tmp_path / "grandchild"
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(note)!r}, 'a').write(f'{{child.pid}}\\n')\n"
        "print('up', flush=True); time.sleep(600)"
    )
    script = (
        f"components = [python('pool', {code!r},"
        " ready=lambda running: b'up' in running.log.read_bytes()[running.log_offset:])]"
    )
    with supervised(var, script):
        found = wait_for(var, is_ready)
        orphan = processes.identify(int(note.read_text()))
        assert orphan is not None
        os.kill(pid_of(found, "pool"), signal.SIGKILL)
        wait_for(
            var,
            lambda found: (
                found.component("pool").restarts == 1 and found.component("pool").state == "ready"
            ),
        )
        assert not processes.is_alive(orphan)
        heir = processes.identify(int(note.read_text().split()[1]))
        assert heir is not None
    assert not processes.is_alive(heir)


def test_children_do_not_outlive_a_killed_supervisor(var: Path) -> None:
    with supervised(var, "components = [python('web', STAYS), python('worker', STAYS)]") as process:
        found = wait_for(var, is_ready)
        children = [each.process for each in found.components if each.process]
        assert len(children) == 2
        process.kill()
        process.wait()
        deadline = time.monotonic() + 30
        while any(processes.is_alive(child) for child in children):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_asking_twice_to_stop_does_not_wait(var: Path) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    script = (
        f"components = [python('stubborn', {code!r}, stop_within_s=60,"
        " ready=lambda running: running.uptime_s > 0.3)]"
    )
    with supervised(var, script) as process:
        wait_for(var, is_ready)
        process.send_signal(signal.SIGINT)
        wait_for(var, lambda found: found.phase == "stopping")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_a_strangers_answer_on_our_port_does_not_make_us_ready(var: Path) -> None:
    """Two stacks chose the same free port at once, and the other was faster to bind it."""
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]

        def serve() -> None:
            while True:
                try:
                    connection, _ = stranger.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1024)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        assert probes.http_status(f"http://127.0.0.1:{port}/") == 200
        script = (
            "from meterplane.stack import probes\n"
            "components = [python('late', STAYS, ready_within_s=0.5,"
            f" ready=probes.http('http://127.0.0.1:{port}/'))]"
        )
        with supervised(var, script) as process:
            assert process.wait(30) == 1
        stranger.shutdown(socket.SHUT_RDWR)
    found = wait_for(var, lambda found: found.phase == "failed")
    assert found.component("late").detail.startswith("not ready within")
