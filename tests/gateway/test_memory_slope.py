"""A worker keeps nothing of a request that is over: its memory is flat over a million of them.

Resident memory against requests answered, a least-squares line through what follows the warm-up.
`MEMORY_SLOPE_REQUESTS` sets how many.
"""

import json
import os
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

import httpx2 as httpx
import pytest

from tests.benchmarks.gateway import instruments
from tests.benchmarks.gateway.load import numbers_of
from tests.benchmarks.gateway.machine import resident_kb
from tests.conftest import free_port, stop, wait_until
from tests.gateway.deployments import CHAT, asking, let_in, model, new_name, nowhere, put_on_sale
from tests.gateway.deployments import target as arm

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]

REQUESTS = int(os.environ.get("MEMORY_SLOPE_REQUESTS", "1000000"))
AT_ONCE = 32
WITHIN_S = 840.0  # 1,200 requests/s; this machine does five times that
WARM_UP_SHARE = 0.2  # pools, caches and arenas fill: no slope
SAMPLE_EACH_S = 0.25
SLOPE_MB_MAX = 1.0  # over a million requests
RESIDENT_MB_MAX = 60.0
BUDGET_NANO = 10**15


@dataclass
class Watch:
    """Samples a gateway's memory and its upstream's count, and clears away sealed segments: a
    million requests are 700 MB of journal.
    """

    pid: int
    upstream: str
    journal: object
    samples: list[tuple[int, float]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def run(self):
        with httpx.Client() as client:
            while not self.over.wait(SAMPLE_EACH_S):
                served = json.loads(client.get(f"{self.upstream}/count").content)["served"]
                self.samples.append((served, resident_kb(self.pid) / 1024))
                for segment in self.journal.rglob("*.sealed"):
                    with suppress(FileNotFoundError):
                        segment.unlink()


def line_through(points):
    """Least squares: slope in MB a million requests, its standard error, and what is left over."""
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    left_over = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points) / (count - 2)
    return slope * 1e6, (left_over / spread) ** 0.5 * 1e6, left_over**0.5


@pytest.fixture
def upstream(tmp_path):
    """An OpenAI-compatible server that costs almost nothing."""
    port = free_port()
    process = subprocess.Popen([str(instruments.build("upstream", tmp_path)), str(port)])
    url = f"http://127.0.0.1:{port}"

    def answers():
        with suppress(httpx.TransportError):
            return httpx.get(f"{url}/count").status_code == 200
        return False

    wait_until(answers, "the upstream answering")
    yield url
    stop(process)


@pytest.mark.timeout(900)
def test_memory_is_flat_over_a_million_requests(start_gateway, upstream, onboard, tmp_path):
    gateway = start_gateway(nowhere())
    put_on_sale(tmp_path, model(name := new_name(), targets=[arm("a", upstream)]))
    secret = let_in(onboard, monthly_budget_nano=BUDGET_NANO).secret
    body = tmp_path / "body.json"
    body.write_text(json.dumps(asking(name, max_tokens=20)))
    port = gateway.url.rpartition(":")[2]
    client = instruments.build("client", tmp_path)
    numbers = (str(AT_ONCE), str(WITHIN_S), str(REQUESTS))
    watch = Watch(gateway.process.pid, upstream, gateway.journal)
    watching = threading.Thread(target=watch.run)
    watching.start()
    began = time.monotonic()
    try:
        done = subprocess.run(
            [client, port, CHAT, *numbers, body, f"Authorization: Bearer {secret}"],
            capture_output=True,
            text=True,
            timeout=WITHIN_S + 60,
            check=False,
        )
    finally:
        watch.over.set()
        watching.join()
    found = numbers_of(done.stdout, done.stderr)
    assert found["ok"] == REQUESTS
    points = [each for each in watch.samples if each[0] > REQUESTS * WARM_UP_SHARE]
    slope, error, left_over = line_through(points)
    sizes = [size for _, size in points]
    print(
        f"{REQUESTS:,} requests in {time.monotonic() - began:.0f} s: {sizes[0]:.1f} MB after the"
        f" warm-up, {sizes[-1]:.1f} MB at the end, {max(sizes):.1f} MB at most; slope"
        f" {slope:+.2f} MB a million (standard error {error:.3f}, {len(points)} samples,"
        f" {left_over:.2f} MB around the line)"
    )
    assert max(size for _, size in watch.samples) <= RESIDENT_MB_MAX
    assert slope - 2 * error <= SLOPE_MB_MAX
