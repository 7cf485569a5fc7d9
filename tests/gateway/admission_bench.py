"""An admitter over a real Redis, a key whose pools are filled, and requests of known cost."""

import asyncio
import os
import random
import signal
from uuid import UUID

import redis.asyncio as redis
from psycopg_pool import AsyncConnectionPool

from meterplane.contracts import admission_keys as names
from meterplane.contracts.policy import KeyPolicy, Limit
from meterplane.gateway.admission_commands import SCRIPTS, PreparedCommands, Worst
from meterplane.gateway.admit import Admitter
from meterplane.gateway.budgets import Budgets
from meterplane.gateway.insist import Insist
from meterplane.gateway.lua_calls import LuaCalls
from meterplane.gateway.policies import Policies
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from tests.conftest import wait_until

DIGEST = b"d" * 32
POOL_NANO = 1_000_000
LEVELS = ("key", "project", "organisation")


def limit(kind="requests", window="minute", amount=60, *, level="organisation", **more):
    """One limit of an organisation, or whatever is said."""
    return Limit(
        level=level,
        scope_id=more.pop("scope_id", UUID(int=1)),
        kind=kind,
        window=window,
        amount=amount,
        **more,
    )


def budgets(random_=random, levels=LEVELS, amount=POOL_NANO):
    """A month's budget at each level."""
    return [
        limit("spend", "month", amount, level=level, scope_id=UUID(int=random_.getrandbits(128)))
        for level in levels
    ]


def make_policy(random_=random, **changed):
    def some_id():
        return UUID(int=random_.getrandbits(128))

    values = {
        "version": random_.randrange(1, 10**6),
        "key_id": some_id(),
        "tenant_id": some_id(),
        "project_id": some_id(),
        "status": "active",
        "status_reason": "",
        "expires_at_ms": None,
        "currency": "eur",
        "price_version_id": some_id(),
        "models": {},
        "limits": budgets(random_),
    }
    return KeyPolicy(**values | changed)


class Request:
    """Asks for what it is told to ask for; `room_nano` is the least it can make do with."""

    def __init__(self, nano=0, tokens_in=0, tokens_out=0, model="m", least_nano=None):
        self.model = model
        self.asks = Worst(nano, tokens_in, tokens_out)
        self.least_nano = least_nano

    def worst(self, policy):
        return self.asks

    def fit(self, policy, room_nano):
        if self.least_nano is None or room_nano < self.least_nano:
            return None
        self.asks = Worst(min(self.asks.nano, room_nano), self.asks.tokens_in, self.asks.tokens_out)
        return self.asks.nano

    def fits(self, policy, room_nano):
        least = self.asks.nano if self.least_nano is None else self.least_nano
        return room_nano >= least


class AfreshPolicies(Policies):
    """PostgreSQL's part: what it has now for the one key."""

    current = None

    async def read_afresh(self, digest):
        assert digest == DIGEST
        return self.current


class DaysKnown:
    """No count of the day is ever missing."""

    async def start(self, policy):
        pass


class Bench:
    """An admitter, its Redis, and a key whose pools are filled."""

    def __init__(self, admitter, calls, insist, policies, server, policy):
        self.admitter, self.calls, self.insist = admitter, calls, insist
        self.policies, self.server, self.policy = policies, server, policy

    async def admit(self, nano=0, request_id=None, policy=None, **asked):
        request = asked.pop("request", None) or Request(nano, **asked)
        policy = policy or self.policy
        return await self.admitter.admit(request_id or uuid7(), DIGEST, policy, request)

    async def settle(self, admission, nano=0, tokens_in=0, tokens_out=0):
        await self.admitter.settle(admission, Worst(nano, tokens_in, tokens_out))

    async def know(self, policy):
        await self.server.set(names.version(policy.tenant_id, policy.key_id), policy.version)

    async def fill(self, policy, nano=POOL_NANO):
        await self.know(policy)
        for applied in prepared(policy).limits:
            if applied.is_budget:
                await self.server.hset(applied.key, mapping={"left": nano, "credited": nano})

    async def pools(self, policy=None):
        """What the pools have left, and what is held of them."""
        keys = [each.key for each in prepared(policy or self.policy).limits if each.is_budget]
        fields = ("left", "credited", "spent")
        found = [[int(n or 0) for n in await self.server.hmget(key, fields)] for key in keys]
        held = {credited - spent - left for left, credited, spent in found}
        return {left for left, _, _ in found}, held

    async def reservations(self):
        return await self.server.keys("*reservation*")

    async def hits(self, policy=None):
        found = await self.server.hgetall(names.hits((policy or self.policy).tenant_id))
        return {key.decode(): int(count) for key, count in found.items()}

    async def everything_owed_is_paid(self):
        await asyncio.to_thread(wait_until, lambda: not self.insist.owed, "paying")

    async def stall(self):
        """Stop the Redis; SIGCONT to what this returns wakes it."""
        pid = (await self.server.info("server"))["process_id"]
        os.kill(pid, signal.SIGSTOP)
        return pid


def prepared(policy, model="m"):
    return PreparedCommands(policy, model, clock.now_ms())


async def open_bench(redis_url, stack):
    """A bench whose parts are closed by an AsyncExitStack."""
    pool = AsyncConnectionPool("", open=False)
    calls = LuaCalls(redis_url, SCRIPTS)
    calls.start()
    stack.push_async_callback(calls.close)
    insist = Insist(calls)
    insist.start()
    stack.push_async_callback(insist.close)
    policies = AfreshPolicies(pool)
    server = await stack.enter_async_context(redis.Redis.from_url(redis_url))
    admitter = Admitter(calls, insist, policies, Budgets(pool), DaysKnown())
    bench = Bench(admitter, calls, insist, policies, server, make_policy())
    await bench.fill(bench.policy)
    return bench
