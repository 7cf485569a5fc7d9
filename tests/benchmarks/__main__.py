"""`make bench`: what the gateway adds to a request, measured here against a running stack.

The same small tensor request goes straight to Triton and through the gateway, alternating in
rounds, so that what else the machine does hits both alike. Client, gateway, Triton, PostgreSQL and
worker share the cores: the figures are a floor for this machine, not a promise for another.
"""

import asyncio
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from meterplane.stack import layout, stack_file

ROUNDS = 5
REQUESTS_PER_ROUND = 400
CONNECTIONS = (1, 8)
PATH = "/v2/models/identity/infer"
BODY = b'{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[4],"data":[1.0,2.0,3.0,4.0]}]}'


@dataclass(slots=True)
class Measured:
    """Latencies of all rounds of one target at one number of connections."""

    latencies_ms: list[float] = field(default_factory=list)
    took_s: float = 0.0
    refused: int = 0

    def percentile(self, share: float) -> float:
        """Nearest rank."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def client(url: str, key: str, count: int, into: Measured) -> None:
    """One keep-alive connection, one request at a time; written by hand to cost little itself."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    request = (
        f"POST {PATH} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    ).encode() + BODY
    for _ in range(count):
        began = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        ]
        await reader.readexactly(lengths[0])
        if head.split(b" ", 2)[1] == b"200":
            into.latencies_ms.append((time.perf_counter() - began) * 1000)
        else:
            into.refused += 1
            await asyncio.sleep(0.05)
    writer.close()
    await writer.wait_closed()


async def measure(targets: Sequence[tuple[str, str, str]]) -> dict[tuple[str, int], Measured]:
    """All targets at all numbers of connections, in alternating rounds, after a warm-up."""
    results = {(name, at): Measured() for name, _, _ in targets for at in CONNECTIONS}
    for _, url, key in targets:
        await client(url, key, 100, Measured())
    for _ in range(ROUNDS):
        for at in CONNECTIONS:
            for name, url, key in targets:
                into = results[name, at]
                began = time.perf_counter()
                await asyncio.gather(
                    *(client(url, key, REQUESTS_PER_ROUND // at, into) for _ in range(at))
                )
                into.took_s += time.perf_counter() - began
    return results


def main() -> int:
    """Measure and print; 1 without a running stack."""
    stack = stack_file.read(layout.current())
    if stack is None:
        print("Nothing runs. Start it with `make up DETACH=1`, then measure.", file=sys.stderr)
        return 1
    targets = (("Triton", stack.triton, "none"), ("gateway", stack.gateway, stack.api_key))
    results = asyncio.run(measure(targets))
    print(f"\n  identity, 4 floats, JSON, keep-alive; {ROUNDS} rounds of {REQUESTS_PER_ROUND}")
    print(f"  {os.cpu_count()} cores ({platform.machine()}), everything on this machine\n")
    print(f"  {'':8} {'conns':>5} {'n':>6} {'p50 ms':>8} {'p99 ms':>8} {'req/s':>7} {'refused':>8}")
    for (name, at), found in results.items():
        rate = len(found.latencies_ms) / found.took_s
        print(
            f"  {name:8} {at:>5} {len(found.latencies_ms):>6} {found.percentile(0.5):>8.2f}"
            f" {found.percentile(0.99):>8.2f} {rate:>7.0f} {found.refused:>8}"
        )
    added = statistics.median(results["gateway", 1].latencies_ms) - statistics.median(
        results["Triton", 1].latencies_ms
    )
    print(
        f"\n  admission, journal and settlement: {added:.2f} ms at the median of one connection\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
