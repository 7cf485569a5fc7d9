"""Whatever is killed, and whenever: each request that was served is counted once, and no other.

A stack of its own under load, half of it streams, while its processes are killed at random: the
gateway, Celery's workers, both Redis and the shipper by SIGKILL, PostgreSQL by an immediate stop,
and the supervisor, with which everything dies. Counted by the callers (`kill_load`) and held
against usage.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from meterplane.journal.reader import frames_under
from meterplane.stack import processes
from meterplane.stack.layout import Layout
from tests.conftest import wait_until
from tests.scenarios.conftest import RunningStack, free_base, logs, shell
from tests.scenarios.kill_load import STREAM_TOKENS, Attempt, Load

pytestmark = [pytest.mark.stack, pytest.mark.long]

CALLERS = 64
SERVED_BETWEEN = (50, 600)  # answers before the next kill
BACK_WITHIN_S = 120
DRAINED_WITHIN_S = 300
# How often each is drawn. With the supervisor everything is gone and has to be started again.
VICTIMS = {
    "gateway": 6, "worker": 4, "worker child": 4, "postgres": 4, "broker": 3, "admission": 4,
    "shipper": 3, "beat": 1, "supervisor": 1,
}  # fmt: skip


@pytest.fixture
def own_stack(tmp_path) -> Iterator[RunningStack]:
    """A stack that nobody else shares."""
    running = RunningStack(Layout(tmp_path / "var"), shell(tmp_path / "var"), free_base())
    started = running.up()
    try:
        assert started.returncode == 0, started.stdout + started.stderr + logs(running.layout)
        wait_until(
            lambda: running.record.component("history").state in {"done", "failed"},
            "the demo's history", BACK_WITHIN_S,
        )  # fmt: skip
        yield running
    finally:
        running.manage("down")


def kill(stack: RunningStack, victim: str) -> None:
    """Kill it, in the middle of whatever it does."""
    if victim == "supervisor":
        os.kill(stack.record.supervisor.pid, signal.SIGKILL)
        started = [each.process for each in stack.record.components if each.process]
        wait_until(lambda: not any(map(processes.is_alive, started)), "its children gone", 60)
        again = stack.up()
        assert again.returncode == 0, again.stdout + again.stderr
        return
    process = stack.record.component(victim.split()[0]).process
    if process is None or not processes.is_alive(process):
        return  # being started again after the last time
    pid = process.pid
    if victim == "worker child":
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = file.read().split()
        if not children:
            return
        pid = int(children[0])
    os.kill(pid, signal.SIGQUIT if victim == "postgres" else signal.SIGKILL)


def all_up(stack: RunningStack) -> bool:
    found = stack.record.components
    return all(each.state in {"ready", "done"} and not each.detail for each in found)


def drained(stack: RunningStack) -> bool:
    """Nothing is in any journal any more."""
    try:
        return not any(True for _ in frames_under(stack.layout.journal))
    except FileNotFoundError:
        return False  # taken in while we looked


def events_by_attempt(stack: RunningStack) -> dict[int, list[tuple]]:
    """What usage says of each attempt: request id, status, tokens in and out, cost."""
    found: dict[int, list[tuple]] = {}
    for number, *event in stack.rows(
        "SELECT (tags->>'attempt')::int, request_id::text, status, tokens_in, tokens_out, cost_nano"
        " FROM usage_event WHERE tags ? 'attempt'"
    ):
        found.setdefault(number, []).append(tuple(event))
    return found


def problem_of(attempt: Attempt, events: list[tuple]) -> str | None:
    """What is wrong with what was counted of an attempt, if anything is."""
    if len(events) > 1:
        return "counted twice"
    if not events:
        return "lost" if attempt.end in ("done", "cut") else None
    request_id, status, tokens_in, tokens_out, cost_nano = events[0]
    if attempt.request_id and attempt.request_id != request_id:
        return "counted under another id"
    if attempt.end == "done":
        if status != "ok":
            return f"served and counted as {status}"
        if attempt.tokens is not None and attempt.tokens != (tokens_in, tokens_out):
            return f"told {attempt.tokens}, counted {(tokens_in, tokens_out)}"
        if attempt.stream != (attempt.tokens is not None):
            return "a stream that did not tell its usage"
    elif attempt.end == "refused" and cost_nano:
        return "refused and paid"
    elif not attempt.pieces - 1 <= tokens_out <= STREAM_TOKENS:
        return f"{attempt.pieces} pieces were seen, {tokens_out} tokens counted"
    return None


def assert_every_attempt_is_counted_once(stack: RunningStack, attempts: list[Attempt]) -> None:
    events = events_by_attempt(stack)
    assert set(events) <= set(range(len(attempts))), "usage of nobody"
    problems = {
        number: problem
        for number, attempt in enumerate(attempts)
        if (problem := problem_of(attempt, events.get(number, [])))
    }
    print(f"problems: {Counter(problems.values())}")
    assert problems == {}, [(number, attempts[number], events.get(number)) for number in problems][
        :10
    ]
    for table in ("usage_hour", "usage_day"):
        assert stack.rows(
            f"SELECT sum(events), sum(tokens_in), sum(tokens_out), sum(cost_nano) FROM {table}"
        ) == stack.rows(
            "SELECT count(*), sum(tokens_in), sum(tokens_out), sum(cost_nano) FROM usage_event"
        )
    assert stack.rows("SELECT count(*) FROM usage_quarantine") == [(0,)]


def killed_so_often(stack: RunningStack, seed: int, kills: int) -> None:
    chance = random.Random(seed)
    killed: Counter[str] = Counter()
    with Load(stack.file.gateway, stack.file.api_key, CALLERS) as load:
        wait_until(lambda: load.done > 500, "everything being warm", 60)
        warm, began = load.done, time.monotonic()
        wait_until(lambda: load.done > warm + 2_000, "some load", 60)
        quiet = (load.done - warm) / (time.monotonic() - began)
        for _ in range(kills):
            (victim,) = chance.choices(list(VICTIMS), list(VICTIMS.values()))
            served = load.done + chance.randint(*SERVED_BETWEEN)
            wait_until(lambda served=served: load.done >= served, "answers", BACK_WITHIN_S)
            kill(stack, victim)
            killed[victim] += 1
        wait_until(lambda: all_up(stack), "every component ready", BACK_WITHIN_S)
        served = load.done + 500
        wait_until(lambda: load.done >= served, "answers at the end", BACK_WITHIN_S)
    ends = Counter((("stream" if a.stream else "infer"), a.end) for a in load.attempts)
    print(
        f"seed {seed}: {kills} kills {dict(killed)} in {load.took_s:.0f} s, {load.done} served,"
        f" {load.done / load.took_s:.0f} a second with those that nothing could be served in,"
        f" {quiet:.0f} before the first; {dict(ends)}"
    )
    began = time.monotonic()
    wait_until(lambda: drained(stack), "the journals taken in", DRAINED_WITHIN_S)
    print(f"taken in {time.monotonic() - began:.1f} s after the last request")
    assert_every_attempt_is_counted_once(stack, load.attempts)


@pytest.mark.timeout(900)
def test_twenty_kills_lose_and_double_nothing(own_stack: RunningStack):
    killed_so_often(own_stack, random.randrange(2**32), 20)


@pytest.mark.timeout(3600)
def test_225_kills_lose_and_double_nothing(own_stack: RunningStack):
    killed_so_often(own_stack, random.randrange(2**32), 225)
