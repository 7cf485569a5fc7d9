"""Admissions and settlements made in one call are what they would be one after the other."""

import contextlib
import random
from uuid import UUID

import pytest

from meterplane.contracts.admission_keys import epoch as epoch_key
from meterplane.contracts.reservations import Granted
from meterplane.gateway.admission_commands import Tokens, Worst, reserved_as, spelt
from meterplane.gateway.admission_commands import credit as credit_command
from meterplane.kernel.ids import uuid7
from tests.gateway.admission_bench import budgets, limit, make_policy, open_bench, prepared

CASES = 30
UNITS = ("requests", "input_tokens", "output_tokens", "total_tokens")


@pytest.fixture
async def bench(redis_url):
    async with contextlib.AsyncExitStack() as stack:
        yield await open_bench(redis_url, stack)


def some_limits(dice):
    """A few of every kind, of which some only notify. Rates are too slow to come back meanwhile."""
    modes = ["enforce", "enforce", "notify"]
    found = []
    for kind in dice.sample(UNITS, dice.randrange(4)):
        window = dice.choice(["minute", "day"])
        amount = dice.randrange(1, 60)
        burst = dice.randrange(1, 40) if window == "minute" else None
        found.append(
            limit(kind=kind, window=window, amount=amount, burst=burst, mode=dice.choice(modes))
        )
    if dice.random() < 0.4:
        amount = dice.randrange(0, 12)
        found.append(limit(kind="concurrency", window="", amount=amount, mode=dice.choice(modes)))
    return found


class Side:
    """One of two organisations to which the same things happen."""

    def __init__(self, bench, policy):
        self.bench, self.policy = bench, policy
        self.prepared = prepared(policy)

    async def begin(self, granted):
        """An epoch, a current policy, and what each of its pools was granted."""
        await self.bench.know(self.policy)
        await self.bench.server.set(epoch_key(self.policy.tenant_id), "1")
        pools = [each for each in self.prepared.limits if each.is_budget]
        for place, (pool, nano) in enumerate(zip(pools, granted, strict=True)):
            if nano:
                credited = Granted(nano, nano, 1)
                command = credit_command(self.policy, pool, "1", UUID(int=place), credited)
                assert await self.bench.calls.ask(command) == 1

    async def one_by_one(self, group, parts):
        return [
            group.answers(await self.bench.calls.ask(group.command([part])))[0] for part in parts
        ]

    async def together(self, group, parts):
        return group.answers(await self.bench.calls.ask(group.command(parts)))

    async def memory(self):
        """All that Redis holds of it, without the names of this organisation; and each rate's
        theoretical arrival, in seconds from now."""
        server, found, rates = self.bench.server, {}, {}
        ours = [self.policy.tenant_id, self.policy.key_id, self.policy.project_id]
        now_s = (await server.time())[0] - 1_700_000_000
        async for key in server.scan_iter(f"mp:{{{self.policy.tenant_id}}}:*"):
            match (await server.type(key)).decode():
                case "hash":
                    value = sorted((await server.hgetall(key)).items())
                case "zset":
                    value = sorted(await server.zrange(key, 0, -1))
                case "set":
                    value = sorted(await server.smembers(key))
                case _:
                    value = await server.get(key)
            name, text = key.decode(), str(value)
            for place, each in enumerate(ours):
                name = name.replace(str(each), f"<{place}>")
                text = text.replace(str(each), f"<{place}>")
            if ":minute" in name:
                rates[name] = max(0, float(value or 0) / 1e6 - now_s)
            else:
                found[name] = text
        return found, rates


async def remember_the_same(one, other):
    (found, rates), (theirs, their_rates) = await one.memory(), await other.memory()
    assert found == theirs
    for name in rates.keys() | their_rates.keys():
        assert abs(rates.get(name, 0) - their_rates.get(name, 0)) < 5, name


def alike(ours, theirs):
    """Two answers, but for how long a wait is to the microsecond."""
    if ours[1][0] == theirs[1][0] == b"limit":
        return ours[1][1] == theirs[1][1] and abs(ours[1][2] - theirs[1][2]) < 5_000_000
    return ours == theirs


@pytest.mark.parametrize("case", range(CASES))
async def test_what_is_asked_together_is_answered_as_one_by_one(bench, case):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice, tokens = random.Random(seed), Tokens()
    limits = some_limits(dice)
    spend = budgets(dice, ("key", "project", "organisation")[: dice.randrange(4)])
    sides = []
    for _ in range(2):
        policy = make_policy(random.Random(uuid7().int), limits=[*spend, *limits], version=7)
        sides.append(Side(bench, policy))
    granted = [dice.choice([0, 100, 1000, 3000]) for _ in spend]
    for side in sides:
        await side.begin(granted)
    alone, together = sides
    parts = []
    for _ in range(dice.randrange(1, 40)):
        token = tokens.mint()
        worst = Worst(*(dice.choice([0, dice.randrange(200)]) for _ in range(3)))
        parts.append((reserved_as(uuid7(), token), spelt(worst), token, worst))
    asked = [part[:3] for part in parts]
    ours = await alone.one_by_one(alone.prepared.admits, asked)
    theirs = await together.together(together.prepared.admits, asked)
    assert [each for each in zip(ours, theirs, strict=True) if not alike(*each)] == []
    await remember_the_same(alone, together)
    # Some of them settle, once or twice, and for less than they held.
    used = [
        (part[0], spelt(Worst(*(dice.randrange(each + 1) for each in _amounts(part[3])))))
        for part in dice.choices(parts, k=dice.randrange(1, 40))
    ]
    assert await alone.one_by_one(alone.prepared.settles, used) == await together.together(
        together.prepared.settles, used
    )
    await remember_the_same(alone, together)


def _amounts(worst):
    return worst.nano, worst.tokens_in, worst.tokens_out
