"""A stack is stopped from any shell, and what a killed supervisor left is found again."""

import signal
from pathlib import Path

import msgspec
import pytest

from meterplane.stack import down, processes, record
from meterplane.stack.layout import Layout
from tests.stack.rig import is_ready, supervised, wait_for

# Deaf to its supervisor's death and to SIGTERM, as a process is that changed its user or hangs.
SURVIVES = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
SCRIPT = (
    f"components = [python('survivor', {SURVIVES!r},"
    " ready=lambda running: running.uptime_s > 0.3), python('web', STAYS)]"
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "var")


def test_a_stack_is_stopped_from_another_shell(layout: Layout):
    seen: list[str] = []
    with supervised(layout.var, "components = [python('web', STAYS)]") as supervisor:
        wait_for(layout.var, is_ready)
        assert down.running(layout) is not None
        stopped = down.stop(layout, lambda found: seen.append(found.phase))
        assert stopped is not None
        assert supervisor.wait(30) == 0
    assert down.running(layout) is None
    assert down.stop(layout) is None
    found = record.read(layout)
    assert found is not None
    assert found.phase == "stopped"


def test_what_survived_a_killed_supervisor_is_stopped_by_the_next_command(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(down, "LEFTOVER_STOP_WITHIN_S", 0.3)
    with supervised(layout.var, SCRIPT) as supervisor:
        survivor = wait_for(layout.var, is_ready).component("survivor").process
        assert survivor is not None
        assert down.stop_leftovers(layout) == []
        supervisor.kill()
        supervisor.wait()
    assert processes.is_alive(survivor)
    layout.stack.write_text("{}")
    assert "survivor" in down.stop_leftovers(layout)
    assert not processes.is_alive(survivor)
    assert not layout.stack.exists()
    assert down.stop_leftovers(layout) == []


def test_a_stranger_with_a_recorded_pid_is_left_alone(layout: Layout):
    with supervised(layout.var, SCRIPT) as supervisor:
        found = wait_for(layout.var, is_ready)
        supervisor.kill()
        supervisor.wait()
    survivor = found.component("survivor").process
    assert survivor is not None
    reused = msgspec.structs.replace(survivor, started_ticks=survivor.started_ticks - 1)
    components = [
        msgspec.structs.replace(each, process=reused if each.name == "survivor" else None)
        for each in found.components
    ]
    record.write(layout, msgspec.structs.replace(found, components=components))
    assert down.stop_leftovers(layout) == []
    assert processes.is_alive(survivor)
    assert processes.send(survivor, signal.SIGKILL)
