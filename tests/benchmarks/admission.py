"""`python -m tests.benchmarks.admission`: what admitting and settling cost a gateway.

Callers admit and settle in a closed loop against an embedded Redis of their own, under uvloop, with
a rate and three budgets. CPU is this process's alone (callers included), Redis' is not counted.
Where there are two cores, Redis has the last and the gateway the first. The lone caller is compared
with bare round trips on the same kind of socket: PING, and the admission script itself.

The pools are filled beforehand: PostgreSQL has no part in a request that finds its pools filled.
"""

import asyncio
import os
import secrets
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import redis
import uvloop
from psycopg_pool import AsyncConnectionPool

from meterplane.contracts import admission_keys
from meterplane.contracts.policy import Budget, BudgetScope, KeyPolicy, RateLimit
from meterplane.gateway.admission_commands import ADMIT, SCRIPTS
from meterplane.gateway.admit import Admitter, budget_window
from meterplane.gateway.budgets import Budgets
from meterplane.gateway.insist import Insist
from meterplane.gateway.lua_calls import LuaCalls, LuaUnavailable
from meterplane.gateway.policies import Policies
from meterplane.gateway.redis_connection import pack
from meterplane.kernel.ids import uuid7
from meterplane.stack.embedded import redis as embedded

CALLERS = (1, 8, 32, 128)
REQUESTS = 20_000  # of all callers of a round together
LONE_REQUESTS = 4_000
ROUNDS = 3  # the median round by CPU counts
ROUND_TRIPS = 5_000
COST_NANO = 10_000
POOL_NANO = 10**15
SCOPES: tuple[BudgetScope, ...] = ("key", "project", "organisation")
DIGEST = secrets.token_bytes(32)


@dataclass(slots=True)
class Round:
    """One number of callers, measured once."""

    cpu_us: float
    took_s: float
    admits_us: list[float] = field(default_factory=list)
    lost: int = 0

    def percentile(self, share: float) -> float:
        """Nearest rank, of admissions alone."""
        return percentile(self.admits_us, share)


def percentile(values: list[float], share: float) -> float:
    """Nearest rank."""
    ordered = sorted(values)
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


def policy() -> KeyPolicy:
    """A key with a rate that is never reached and a budget in every scope."""
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
        rate=RateLimit(requests_per_minute=60_000_000, burst=10_000_000),
        budgets=[
            Budget(scope=scope, scope_id=uuid7(), window="month", limit_nano=POOL_NANO)
            for scope in SCOPES
        ],
    )


def fill(url: str, key: KeyPolicy) -> None:
    """What the control plane and earlier requests would have put into Redis."""
    with redis.Redis.from_url(url) as client:
        client.set(admission_keys.version(key.tenant_id, key.key_id), key.version)
        for budget in key.budgets:
            name = admission_keys.pool(
                key.tenant_id, budget.scope, budget.scope_id, budget_window()
            )
            client.set(name, POOL_NANO)


def cost_of(_: KeyPolicy) -> int:
    """Nobody's arithmetic is measured here."""
    return COST_NANO


async def caller(
    admitter: Admitter, key: KeyPolicy, request_ids: list[UUID], into: list[float]
) -> None:
    """One request after the other, as the pipeline has it: nobody waits for what is given back."""
    for request_id in request_ids:
        began = time.perf_counter()
        try:
            admission = await admitter.admit(request_id, DIGEST, key, cost_of)
        except LuaUnavailable:
            continue  # a busy machine; the table says how many
        into.append((time.perf_counter() - began) * 1e6)
        given_back = admitter.release(admission, COST_NANO // 2)
        if len(request_ids) == LONE_REQUESTS and given_back is not None:
            await given_back  # a lone admission is measured alone


async def one_round(admitter: Admitter, key: KeyPolicy, callers: int) -> Round:
    """All callers at once."""
    admits_us: list[float] = []
    count = LONE_REQUESTS if callers == 1 else REQUESTS // callers
    # Minted before: a request has its id whether it is admitted or not.
    request_ids = [[uuid7() for _ in range(count)] for _ in range(callers)]
    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller(admitter, key, ids, admits_us) for ids in request_ids))
    cpu_us = (time.process_time() - cpu) / (count * callers) * 1e6
    took_s, lost = time.perf_counter() - began, count * callers - len(admits_us)
    return Round(cpu_us, took_s, admits_us, lost)


class RoundTrips(asyncio.Protocol):
    """The least a round trip under this loop can be: bytes out, any bytes in, a future."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.answered: asyncio.Future[bytes] | None = None

    def data_received(self, data: bytes) -> None:
        if self.answered is not None:
            self.answered.set_result(data)

    async def measure(self, command: bytes, count: int) -> list[float]:
        """Microseconds of each of `count` exchanges."""
        loop, took_us = asyncio.get_running_loop(), []
        for _ in range(count):
            self.answered = loop.create_future()
            began = time.perf_counter()
            self.transport.write(command)  # type: ignore[attr-defined]
            await self.answered
            took_us.append((time.perf_counter() - began) * 1e6)
        return took_us


async def bare_round_trips(url: str, key: KeyPolicy) -> None:
    """PING and the admission script, each alone on a connection of its own."""
    with redis.Redis.from_url(url) as client:
        sha = client.script_load(ADMIT.source)
    settings = redis.connection.parse_url(url)
    _, trips = await asyncio.get_running_loop().create_unix_connection(RoundTrips, settings["path"])
    await trips.measure(pack("AUTH", settings["password"]), 1)
    names, tenant = admission_keys, key.tenant_id
    keys = [names.version(tenant, key.key_id), names.rate(tenant, key.key_id), names.epoch(tenant)]
    keys.append(names.reservation(tenant, UUID(int=0)))
    keys += [names.pool(tenant, b.scope, b.scope_id, budget_window()) for b in key.budgets]
    arguments = (str(key.version), "0", "1", "10000000", "0", "60", "bench")
    script = pack("EVALSHA", sha, str(len(keys)), *keys, *arguments)
    for name, command in (("PING", pack("PING")), ("admission.lua", script)):
        took_us = await trips.measure(command, ROUND_TRIPS)
        print(
            f"  bare {name:14} {'':9} {'':9} {statistics.median(took_us):>8.0f}"
            f" {percentile(took_us, 0.99):>8.0f}"
        )
    trips.transport.close()


async def measure(url: str) -> None:
    """Everything, printed as a table."""
    key = policy()
    fill(url, key)
    pool = AsyncConnectionPool("", open=False)
    calls = LuaCalls(url, SCRIPTS)
    calls.start()
    admitter = Admitter(calls, Insist(calls), Policies(pool), Budgets(pool))
    await one_round(admitter, key, 8)
    heads = ("callers", "cpu us", "req/s", "p50 us", "p99 us", "per trip", "lost")
    print("\n  {:>19} {:>9} {:>9} {:>8} {:>8} {:>9} {:>7}".format(*heads))
    await bare_round_trips(url, key)
    for callers in CALLERS:
        trips, done = calls.trips, calls.calls
        rounds = [await one_round(admitter, key, callers) for _ in range(ROUNDS)]
        lost = sum(each.lost for each in rounds)
        middle = sorted(rounds, key=lambda each: each.cpu_us)[ROUNDS // 2]
        print(
            f"  {callers:>19} {middle.cpu_us:>9.1f} {len(middle.admits_us) / middle.took_s:>9.0f}"
            f" {middle.percentile(0.5):>8.0f} {middle.percentile(0.99):>8.0f}"
            f" {(calls.calls - done) / (calls.trips - trips):>9.1f} {lost:>7}"
        )
    print("\n  cpu us: gateway CPU of an admission and its settlement; p50, p99: admission\n")
    await calls.close()


if __name__ == "__main__":
    with own_redis() as address:
        uvloop.run(measure(address))
