"""Eight workers, each a process of its own, and what they are set to do together."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tests.simulation.worker import Done, Job

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 8


class Crew:
    """Workers that take one job at a time, together."""

    def __init__(self, processes: Sequence["subprocess.Popen[bytes]"]) -> None:
        self.processes = list(processes)

    def begin(self, job: Job) -> None:
        """Divide a job's requests among the workers, each with a seed of its own."""
        count = len(self.processes)
        for number, process in enumerate(self.processes):
            share = job.requests // count + (number < job.requests % count)
            part = msgspec.structs.replace(job, requests=share, seed=job.seed * 1000 + number)
            _written(process).write(msgspec.json.encode(part) + b"\n")
            _written(process).flush()

    def end(self) -> Done:
        """Wait for all, and add up what they did."""
        parts = self._answers()
        if len(parts) < len(self.processes):
            raise AssertionError("a worker ended; its error is above")
        return _sum(parts)

    def end_of_the_living(self) -> Done:
        """Wait for all that are not killed meanwhile, and add up what those did."""
        return _sum(self._answers())

    def finish(self) -> None:
        """Let them close what they have open, and end."""
        for process in self.processes:
            _written(process).close()
        for process in self.processes:
            process.wait()

    def _answers(self) -> list[Done]:
        lines = [each.stdout.readline() for each in self.processes if each.stdout is not None]
        return [msgspec.json.decode(line, type=Done) for line in lines if line]

    def do(self, job: Job) -> Done:
        self.begin(job)
        return self.end()


def _sum(parts: Sequence[Done]) -> Done:
    return Done(
        settled=sorted(each for part in parts for each in part.settled),
        refused=sorted(each for part in parts for each in part.refused),
        told=sum((Counter(part.told) for part in parts), Counter[str]()),
        gave_up=sum(part.gave_up for part in parts),
        owed=sum(part.owed for part in parts),
        began=min(part.began for part in parts),
        ended=max(part.ended for part in parts),
    )


def _written(process: "subprocess.Popen[bytes]"):  # type: ignore[no-untyped-def]
    assert process.stdin is not None
    return process.stdin


@contextmanager
def crew(workers: int = WORKERS, **environment: str) -> Iterator[Crew]:
    """Workers while they are needed."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.simulation.worker"],
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(workers)
    ]
    try:
        yield Crew(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
