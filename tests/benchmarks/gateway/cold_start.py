"""From starting the process to its first chat completion: the interpreter, the imports, PostgreSQL
and Redis connected, the key's policy read, budget granted, the journal opened."""

import http.client
import statistics
import time

from tests.benchmarks.gateway.bench import Bench
from tests.benchmarks.gateway.machine import memory_mb
from tests.benchmarks.gateway.processes import NotReady
from tests.benchmarks.gateway.targets import Target
from tests.benchmarks.gateway.workload import CHAT, PATH

WITHIN_S = 60.0
RETRY_EACH_S = 0.002


def cold_start(bench: Bench) -> None:
    """The median of a few, each a process of its own."""
    target = bench.cold
    body = CHAT.write(bench.starter.folder).read_bytes()
    took_s, sizes_mb = [], []
    for _ in range(bench.options.cold_starts):
        bench.wait_for_calm()
        began = time.monotonic()
        process = bench.starter.launch(target)
        _first_answer(target, body, began)
        took_s.append(time.monotonic() - began)
        sizes_mb.append(memory_mb([process.pid])[1])
        bench.processes.stop(process)
        if target.account:
            target.account.expect(1)
    bench.report.cold_start(
        {
            "first_200_s": statistics.median(took_s),
            "worst_s": max(took_s),
            "pss_mb": statistics.median(sizes_mb),
            "starts": float(len(took_s)),
        }
    )


def _first_answer(target: Target, body: bytes, began: float) -> None:
    """Ask until it is answered with 200. Raises `NotReady`."""
    headers = {"Content-Type": "application/json"}
    headers |= dict(each.split(": ", 1) for each in target.headers)
    last = "nobody listens"
    while time.monotonic() - began < WITHIN_S:
        connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=WITHIN_S)
        try:
            connection.request("POST", PATH, body, headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status == 200:
                return
            last = f"{answer.status} {text[:300].decode(errors='replace')}"
        except ConnectionError:
            pass  # it does not listen yet
        finally:
            connection.close()
        time.sleep(RETRY_EACH_S)
    raise NotReady(f"no chat completion within {WITHIN_S:.0f} s of the start: {last}")
