"""A supervisor of tiny components in a process of its own, as `manage.py up` is one.

Run as `python rig.py VAR SCRIPT`: SCRIPT is Python that defines `components(rig)`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from meterplane.stack import record
from meterplane.stack.component import Component, Launch
from meterplane.stack.layout import Layout, write_private
from meterplane.stack.record import StackRecord
from meterplane.stack.supervisor import Supervisor

WITHIN_S = 60.0


def python(name: str, code: str, **extra: object) -> Component:
    """A component that runs a line of Python."""
    launch = Launch((sys.executable, "-u", "-c", code), dict(os.environ))
    return Component(name=name, title=name, prepare=lambda: launch, **extra)  # type: ignore[arg-type]


STAYS = "import time; print('up'); time.sleep(600)"


@contextmanager
def supervised(var: Path, script: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a supervisor of what `script` defines; it is gone afterwards."""
    Layout(var).create()
    process = subprocess.Popen([sys.executable, __file__, str(var), script])
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(var: Path, true: Callable[[StackRecord], bool]) -> StackRecord:
    """The first record of which `true` holds."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        found = record.read(Layout(var))
        if found is not None and true(found):
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"never so within {WITHIN_S} s; last: {found}")
        time.sleep(0.01)


def is_ready(found: StackRecord) -> bool:
    return found.phase == "ready"


def pid_of(found: StackRecord, name: str) -> int:
    process = found.component(name).process
    assert process is not None
    return process.pid


def main() -> int:
    var, script = Path(sys.argv[1]), sys.argv[2]
    names: dict[str, object] = {"python": python, "STAYS": STAYS, "signal": signal}
    exec(script, names)
    layout = Layout(var)

    def publish(found: StackRecord) -> None:
        pids = {each.name: each.process and each.process.pid for each in found.components}
        write_private(var / "published.json", json.dumps(pids).encode())

    supervisor = Supervisor(layout, names["components"], publish=publish)  # type: ignore[arg-type]
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
