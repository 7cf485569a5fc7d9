"""`make bench-admission`: what one worker admits in a second, and what that costs it.

Callers admit, or admit and settle, in a closed loop, under uvloop, against an embedded Redis of
their own. Three loads: one key whose organisation has a budget; one key with a budget of its own,
its project's and its organisation's; and 1,000 organisations with one budget each. The pools are
filled beforehand: PostgreSQL has no part in a request that finds its pools filled.

Each round is measured beside its floor, in the same minute: as many callers through the same
combined calls, with the least script there is, an INCR, in place of admission's. A machine that is
busy slows both; the ratio stays. So do the CPU times, of the worker (callers included) and of its
Redis, each of which has one core: a machine with nothing else to do admits as many as the slower of
them can. Where there are two cores, Redis has the last and the worker the first.
"""

import asyncio
import gc
import os
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis
import uvloop
from psycopg_pool import AsyncConnectionPool

from meterplane.contracts import admission_keys
from meterplane.contracts.policy import KeyPolicy, Limit, LimitLevel
from meterplane.gateway.admission_commands import SCRIPTS, PreparedCommands, Worst
from meterplane.gateway.admit import Admission, Admitter
from meterplane.gateway.budgets import Budgets
from meterplane.gateway.day_counts import DayCounts
from meterplane.gateway.insist import Insist
from meterplane.gateway.lua_calls import LuaCalls, LuaUnavailable, Script
from meterplane.gateway.policies import Policies
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from meterplane.stack.embedded import redis as embedded

CALLERS = (1, 8, 32, 50)
REQUESTS = 10_000  # of all callers of a round together
LONE_REQUESTS = 1_000
ROUNDS = 3  # the least disturbed counts
POOL_NANO = 10**15
LEVELS: tuple[LimitLevel, ...] = ("key", "project", "organisation")
ORGANISATIONS = 1_000
FLOOR = Script("return redis.call('INCR', KEYS[1])")
# At 32 callers a second, and the 99th percentile at 50.
TARGETS = {"hot": 30_000, "nested": 30_000, "many": 50_000}
P99_US_MAX = 3_000

Act = Callable[[int], Awaitable[object]]  # of the caller's n-th request


@dataclass(slots=True)
class Round:
    """One number of callers, measured once. CPU is of one request."""

    cpu_us: float = 0.0
    redis_us: float = 0.0
    took_s: float = 0.0
    waits_us: list[float] = field(default_factory=list)
    lost: int = 0

    @property
    def rate(self) -> float:
        return len(self.waits_us) / self.took_s

    @property
    def capacity(self) -> float:
        """Requests a second of a worker and a Redis that have a core each, and no one beside."""
        return 1e6 / max(self.cpu_us, self.redis_us)

    def percentile(self, share: float) -> float:
        """Nearest rank."""
        ordered = sorted(self.waits_us)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@contextmanager
def own_redis() -> Iterator[str]:
    """The URL of a Redis that nobody else uses, on the last core."""
    with tempfile.TemporaryDirectory(prefix="mp-bench-") as folder:
        home, password = Path(folder), secrets.token_hex(8)
        command = embedded.redis_command(home, role="admission", password=password)
        server = subprocess.Popen(command.argv, stdout=subprocess.DEVNULL)
        try:
            cores = sorted(os.sched_getaffinity(0))
            if len(cores) > 1:
                os.sched_setaffinity(server.pid, {cores[-1]})
                os.sched_setaffinity(0, {cores[0]})
            url = embedded.url(home, password)
            while not embedded.is_ready(url):
                time.sleep(0.02)
            yield url
        finally:
            server.terminate()
            server.wait()


def policy(levels: tuple[LimitLevel, ...]) -> KeyPolicy:
    """A key with a month's budget at these levels."""
    return KeyPolicy(
        version=7,
        key_id=uuid7(),
        tenant_id=uuid7(),
        project_id=uuid7(),
        status="active",
        status_reason="",
        expires_at_ms=None,
        currency="eur",
        price_version_id=uuid7(),
        models={},
        limits=[
            Limit(level=level, scope_id=uuid7(), kind="spend", window="month", amount=POOL_NANO)
            for level in levels
        ],
    )


def fill(url: str, policies: list[KeyPolicy]) -> None:
    """What the control plane and earlier requests would have put into Redis."""
    with redis.Redis.from_url(url) as client:
        for each in policies:
            client.set(admission_keys.version(each.tenant_id, each.key_id), each.version)
            for applied in PreparedCommands(each, Asked.model, clock.now_ms()).limits:
                amounts = dict.fromkeys(("left", "credited", "granted"), POOL_NANO)
                client.hset(applied.key, mapping=amounts | {"revision": 1})


class Asked:
    """Nobody's arithmetic is measured here."""

    model = "m"
    most = Worst(10_000, 100, 100)

    def worst(self, _: KeyPolicy) -> Worst:
        return self.most

    def fit(self, _: KeyPolicy, __: int) -> int | None:
        return None


class Load:
    """Requests of some policies, as the pipeline has them: none waits for what is given back."""

    used = Worst(5_000, 50, 50)

    def __init__(self, admitter: Admitter, policies: list[KeyPolicy]) -> None:
        self.admitter, self.policies = admitter, policies
        self.digests = [secrets.token_bytes(32) for _ in policies]
        self.asked = Asked()
        # Drawn by lot: callers that go round in step would ask of the same few at the same time.
        self.whose = random.Random(0).choices(range(len(policies)), k=REQUESTS)
        # Minted before: a request has its id whether it is admitted or not.
        self.ids = [uuid7() for _ in range(REQUESTS)]

    async def admit(self, number: int) -> Admission:
        which = self.whose[number % REQUESTS]
        return await self.admitter.admit(
            self.ids[number % REQUESTS], self.digests[which], self.policies[which], self.asked
        )

    async def admit_and_settle(self, number: int) -> object:
        return self.admitter.release(await self.admit(number), self.used)


class Meter:
    """CPU seconds of the worker and of its Redis, so far. What it asks itself is little."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)

    def read(self) -> tuple[float, float]:
        info = self.client.info("cpu")
        used_s = info["used_cpu_user_main_thread"] + info["used_cpu_sys_main_thread"]
        return time.process_time(), used_s


async def one_round(
    act: Act, callers: int, then: Callable[[], Awaitable[object]], meter: Meter
) -> Round:
    """All callers at once, each one request after the other; `then` is waited for at the end."""
    measured = Round()
    count = LONE_REQUESTS if callers == 1 else REQUESTS // callers
    waits_us = measured.waits_us

    async def caller(first: int) -> None:
        for number in range(first, first + count):
            began = time.perf_counter()
            try:
                await act(number)
            except LuaUnavailable:
                measured.lost += 1  # a busy machine; the table says how many
                continue
            waits_us.append((time.perf_counter() - began) * 1e6)

    gc.collect()
    used = meter.read()
    began = time.perf_counter()
    await asyncio.gather(*(caller(index * count) for index in range(callers)))
    await then()  # what was settled is counted with what was admitted
    measured.took_s = time.perf_counter() - began
    measured.cpu_us, measured.redis_us = (
        (after - before) / (count * callers) * 1e6
        for before, after in zip(used, meter.read(), strict=True)
    )
    return measured


class Report:
    """The table, a line for each number of callers."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def head(self, title: str) -> None:
        heads = ("callers", "admitted/s", "p50 us", "p99 us", "CPU us", "Redis us", "capacity/s",
                 "of INCR's", "lost")  # fmt: skip
        print(f"\n  {title}\n" + "".join(f"{head:>11}" for head in heads))

    def line(self, target: int, callers: int, rounds: list[Round], floors: list[Round]) -> None:
        best = max(rounds, key=lambda each: each.capacity)
        ratio = statistics.median(
            each.capacity / floor.capacity for each, floor in zip(rounds, floors, strict=True)
        )
        p50, p99 = best.percentile(0.5), best.percentile(0.99)
        lost = sum(each.lost for each in rounds)
        print(
            f"{callers:>11}{best.rate:>11,.0f}{p50:>11.0f}{p99:>11.0f}{best.cpu_us:>11.1f}"
            f"{best.redis_us:>11.1f}{best.capacity:>11,.0f}{ratio:>11.2f}{lost:>11}"
        )
        if callers == 32 and best.rate < target:
            self.missed.append(f"{target:,}/s at 32 callers: {best.rate:,.0f}/s")
        if callers == 50 and target and p99 > P99_US_MAX:
            self.missed.append(f"p99 of {P99_US_MAX:,} us at 50 callers: {p99:,.0f} us")


async def measure(url: str) -> int:
    """Everything, printed; how many targets were missed."""
    loads = {
        "hot": [policy(("organisation",))],
        "nested": [policy(LEVELS)],
        "many": [policy(("organisation",)) for _ in range(ORGANISATIONS)],
    }
    titles = {
        "hot": "one key with one budget",
        "nested": "one key with three budgets",
        "many": f"{ORGANISATIONS:,} organisations with one budget each",
    }
    database = AsyncConnectionPool("", open=False)
    calls = LuaCalls(url, (*SCRIPTS, FLOOR))
    calls.start()
    day_counts = DayCounts(database, calls)
    admitter = Admitter(calls, Insist(calls), Policies(database), Budgets(database), day_counts)
    incr = FLOOR.command(["mp:{bench}:floor"], [])

    async def floor(_: int) -> object:
        return await calls.ask(incr)

    async def done() -> None:
        await calls.ask(incr)  # whatever was told before it has happened

    report, meter = Report(), Meter(url)
    for name, policies in loads.items():
        load = Load(admitter, policies)
        for act, title, target in (
            (load.admit, "admitting", TARGETS[name]),
            (load.admit_and_settle, "admitting and settling", 0),
        ):
            report.head(f"{titles[name]}: {title}")
            for callers in CALLERS:
                rounds, floors = [], []
                for _ in range(ROUNDS):
                    meter.client.flushall()
                    fill(url, policies)
                    rounds.append(await one_round(act, callers, done, meter))
                    floors.append(await one_round(floor, callers, done, meter))
                report.line(target, callers, rounds, floors)
    await calls.close()
    print(
        f"\n  n = {REQUESTS:,} requests a round, a lone caller's {LONE_REQUESTS:,}; {ROUNDS} rounds"
        "\n  p50, p99: of an admission, what it waits for its turn included"
        "\n  CPU us, Redis us: of the worker and of Redis; capacity/s: of the slower"
        "\n  of INCR's: its part of the capacity of a script of one INCR through the same calls\n"
    )
    print("\n".join(f"  missed: {each}" for each in report.missed) or "  all targets are met")
    return len(report.missed)


if __name__ == "__main__":
    with own_redis() as address:
        sys.exit(1 if uvloop.run(measure(address)) else 0)
