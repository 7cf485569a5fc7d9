"""`var/stack.json`: its keys are a contract with scripts; only its owner may read it."""

import json
import stat
from pathlib import Path

import pytest

from meterplane.kernel import clock
from meterplane.stack import servers, stack_file
from meterplane.stack.installation import Secrets
from meterplane.stack.layout import Layout
from meterplane.stack.ports import OFFSETS, Ports
from meterplane.stack.processes import Identity
from meterplane.stack.record import ComponentRecord, StackRecord
from meterplane.stack.screen import curl_line

PORTS = Ports({name: 9700 + offset for name, offset in OFFSETS.items()}, {})


def component(name: str, pid: int | None) -> ComponentRecord:
    return ComponentRecord(
        name=name,
        title=name.title(),
        state="ready",
        since_ms=clock.now_ms(),
        background=False,
        process=Identity(pid, 1, "boot") if pid else None,
        stop_signal=15,
        restarts=0,
        url="",
        log=f"/logs/{name}.log",
        detail="",
        last_exit="",
    )


def stack_record(*components: ComponentRecord) -> StackRecord:
    return StackRecord(
        supervisor=Identity(1, 1, "boot"),
        phase="ready",
        started_at_ms=0,
        ready_after_ms=1,
        components=list(components),
        notes=[],
        failure=None,
    )


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def publish(layout: Layout, **pids: int | None) -> stack_file.StackFile:
    secrets = Secrets.generate()
    located = servers.locate(layout, PORTS, secrets, {})
    found = stack_record(*(component(name, pid) for name, pid in pids.items()))
    return stack_file.publish(layout, located, secrets, found)


def test_the_file_has_the_promised_shape_and_is_private(layout: Layout):
    publish(layout, gateway=11, worker=12, migrate=None)
    assert stat.S_IMODE(layout.stack.stat().st_mode) == 0o600
    content = json.loads(layout.stack.read_text())
    assert content["gateway"] == "http://127.0.0.1:9701"
    assert content["web"] == "http://127.0.0.1:9700"
    assert content["stripe"] == "http://127.0.0.1:9703"
    assert content["triton"] == "http://127.0.0.1:9704"
    assert content["grpc"] == "127.0.0.1:9702"
    assert content["metrics"] == "http://127.0.0.1:9707/metrics"
    assert content["database"].startswith("postgresql://postgres:")
    assert content["redis"].startswith("unix://")
    assert content["pids"] == {"gateway": 11, "worker": 12}
    assert set(content["logins"]) == {"owner", "operator"}
    assert set(content["logins"]["owner"]) == {"email", "password"}
    assert set(content) == {
        *("gateway", "grpc", "metrics", "web", "stripe", "triton", "database", "redis"),
        *("api_key", "admin_key", "logins", "pids"),
    }


def test_a_restarted_process_has_its_new_pid_in_the_file(layout: Layout):
    publish(layout, gateway=11)
    publish(layout, gateway=21)
    found = stack_file.read(layout)
    assert found is not None
    assert found.pids == {"gateway": 21}


def test_a_stack_that_is_gone_has_no_file(layout: Layout):
    publish(layout, gateway=11)
    stack_file.withdraw(layout)
    stack_file.withdraw(layout)
    assert stack_file.read(layout) is None


def test_the_curl_line_can_be_pasted(layout: Layout):
    line = curl_line(publish(layout))
    assert "\n" not in line
    assert line.startswith("curl http://127.0.0.1:9701/v1/embeddings ")
