"""One run of a load client against one target, as numbers. Latencies are in milliseconds.

`errors` are answers other than 200, connections that broke and answers that were cut.
"""

import os
import re
import subprocess
from pathlib import Path

from tests.benchmarks.gateway.instruments import WRK_SCRIPT, Instruments
from tests.benchmarks.gateway.machine import Meter, memory_mb
from tests.benchmarks.gateway.targets import Target
from tests.benchmarks.gateway.workload import PATH, Request

Sample = dict[str, float]
GRACE_S = 90.0  # for what is under way when a client's time is up
UNBOUNDED_S = 600.0  # for a client that is bounded by its number of requests


class LoadFailed(Exception):
    """A load client did not finish; the message has its output."""


class Load:
    """Runs clients on the load's core and meters everybody meanwhile."""

    def __init__(
        self, instruments: Instruments, core: int, folder: Path, groups: dict[str, list[int]]
    ) -> None:
        self._instruments = instruments
        self._pin = ["taskset", "-c", str(core)]
        self._folder = folder
        self.groups = groups  # of process ids: upstream, servers, and every target by its name

    def wrk(self, target: Target, request: Request, connections: int, seconds: float) -> Sample:
        """Plain answers, as fast as they come."""
        body = request.write(self._folder)
        command = [
            self._instruments.wrk,
            "-t1",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "--timeout=30s",
            "--latency",
            f"--script={WRK_SCRIPT}",
            f"http://127.0.0.1:{target.port}{PATH}",
        ]
        extra = {"BODY": str(body), "HEADERS": "|".join(target.headers)}
        found, sample = self._metered(target, command, seconds, extra)
        if target.account:
            target.account.expect(int(found["answers"] - found["refused"]), unread=connections)
        return sample | {
            "rate": found["rate"],
            "p50": found["p50"] / 1000,
            "p99": found["p99"] / 1000,
            "errors": found["refused"] + found["broken"],
        }

    def client(
        self,
        target: Target,
        request: Request,
        connections: int,
        *,
        seconds: float = UNBOUNDED_S,
        requests: int = 0,
    ) -> Sample:
        """Answers read to their end, for a time or up to a number of them."""
        command = self.client_command(target, request, connections, seconds, requests)
        found, sample = self._metered(target, command, seconds, {})
        if target.account:
            target.account.expect(int(found["ok"]))
        return sample | {
            "rate": found["rate"],
            "events": found["events"],
            "per_stream": found["per_stream"],
            "first_p50": found["first_p50"] / 1000,
            "first_p99": found["first_p99"] / 1000,
            "p50": found["whole_p50"] / 1000,
            "p99": found["whole_p99"] / 1000,
            "ok": found["ok"],
            "errors": found["refused"] + found["cut"] + found["lost"],
            "seconds": found["seconds"],
        }

    def client_command(
        self,
        target: Target,
        request: Request,
        connections: int,
        seconds: float = UNBOUNDED_S,
        requests: int = 0,
    ) -> list[str]:
        """What `client` runs, for whoever has to do something meanwhile."""
        body = request.write(self._folder)
        numbers = (str(connections), str(seconds), str(requests))
        client = str(self._instruments.client)
        return [client, str(target.port), PATH, *numbers, str(body), *target.headers]

    def _metered(
        self, target: Target, command: list[str], seconds: float, extra: dict[str, str]
    ) -> tuple[dict[str, float], Sample]:
        meter = Meter(self.groups)
        try:
            done = subprocess.run(
                [*self._pin, *command],
                env=os.environ | extra,
                capture_output=True,
                text=True,
                timeout=seconds + GRACE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise LoadFailed(f"{command[0]} against {target.name} did not end") from None
        used = meter.read()
        found = numbers_of(done.stdout, done.stderr)
        resident_mb, proportional_mb = memory_mb(target.pids)
        return found, {
            "cpu": used.by_group.get(target.name, 0.0),
            "cpu_upstream": used.by_group["upstream"],
            "cpu_servers": used.by_group["servers"],
            "cpu_client": used.by_group["client"],
            "foreign": used.foreign,
            "rss_mb": resident_mb,
            "pss_mb": proportional_mb,
        }


def numbers_of(printed: str, complaints: str = "") -> dict[str, float]:
    """The line of results in what a client printed. Raises `LoadFailed`."""
    line = re.search(r"RESULT (.*)", printed)
    if line is None:
        raise LoadFailed(f"a load client failed:\n{printed}{complaints}")
    return {name: float(value) for name, value in re.findall(r"(\w+)=([\d.]+)", line[1])}
