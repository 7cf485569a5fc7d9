"""No ambient and no naive time.

A period that closes by `datetime.now()` closes at another instant in every process and cannot be
replayed. `meterplane.kernel.clock` is the only source of now; monotonic clocks measure durations.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLOCK = ROOT / "platform" / "meterplane" / "kernel" / "clock.py"
AMBIENT = {
    "datetime.now", "datetime.utcnow", "datetime.today", "date.today", "time.time",
    "time.time_ns", "timezone.now", "datetime.datetime.now",
}  # fmt: skip


def test_only_the_kernel_clock_knows_what_time_it_is():
    found = []
    for folder in ("platform/meterplane", "billing", "tenants"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path == CLOCK or "migrations" in path.parts:
                continue
            found += [
                f"{path.relative_to(ROOT)}:{node.lineno}"
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Call) and ast.unparse(node.func) in AMBIENT
            ]
    assert not found
