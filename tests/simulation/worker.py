"""One worker of a simulation: the admission of a real gateway worker, without HTTP and a model.

`python -m tests.simulation.worker` reads one job a line from its standard input and answers each
with one line: JSON both ways. Where PostgreSQL and Redis are comes from the environment of the
tests. It uses the product's own parts: policies, budgets, combined calls, what is owed, a journal.
"""

import asyncio
import dataclasses
import os
import random
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

import msgspec
from psycopg_pool import AsyncConnectionPool

from meterplane.contracts import usage
from meterplane.contracts.policy import KeyPolicy
from meterplane.contracts.reservations import mark_of
from meterplane.gateway.admission_commands import SCRIPTS, Tokens, Worst
from meterplane.gateway.admit import Admission, Admitter
from meterplane.gateway.budgets import Budgets
from meterplane.gateway.day_counts import DayCounts
from meterplane.gateway.insist import Insist
from meterplane.gateway.limit_refusals import LimitReached
from meterplane.gateway.lua_calls import LuaCalls
from meterplane.gateway.policies import Policies
from meterplane.journal.writer import JournalWriter
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.ids import uuid7

RETRY_PAUSE_S = 0.2
PAUSE_S = 0.05
CONNECTIONS_MAX = 4


class Job(msgspec.Struct):
    """What a worker is to do.

    `requests` of one key, all at once, each of which reserves up to `reserved_nano` and costs
    between `cost_share` and all of that; answered within `lasts_s`. A caller that is told to come
    back does so until `give_up_s`. Of the endings other than a full answer each has its share.
    `journal`: where there is one, every request is written to it. `hammer_s`: instead, `requests`
    callers ask again and again for so long.
    """

    digest: str
    requests: int
    seed: int
    reserved_nano: tuple[int, int] = (0, 0)
    cost_share: float = 1.0
    lasts_s: float = 0.01
    give_up_s: float = 60.0
    at_once: int = 10_000
    cancelled: float = 0.0
    failed: float = 0.0
    journal: str = ""
    hammer_s: float = 0.0


class Done(msgspec.Struct):
    """What came of a job. Instants are of the monotonic clock, the same for all workers.

    `settled`: when, for how much, in which epoch. `refused`: until when nothing was left for it,
    and its worst case. `told`: how often each other refusal was answered.
    """

    settled: list[tuple[float, int, str]] = []
    refused: list[tuple[float, int]] = []
    told: dict[str, int] = {}
    gave_up: int = 0
    owed: int = 0
    began: float = 0.0
    ended: float = 0.0


@dataclasses.dataclass(slots=True)
class Asked:
    """One request: what it may cost and what it will."""

    reserved_nano: int
    cost_nano: int
    ending: str
    model: str = "tiny-lm"

    def worst(self, _: KeyPolicy) -> Worst:
        return Worst(self.reserved_nano, 0, 0)

    def fit(self, _: KeyPolicy, __: int) -> int | None:
        return None

    def fits(self, _: KeyPolicy, __: int) -> bool:
        return False


class Worker:
    """The parts of one worker."""

    def __init__(self, pool: AsyncConnectionPool, calls: LuaCalls, insist: Insist) -> None:
        self._pool, self._calls, self.insist = pool, calls, insist
        self.policies = Policies(pool)
        self.journal: JournalWriter | None = None
        self.admitter = self._admitter(Tokens())

    def _admitter(self, tokens: Tokens) -> Admitter:
        budgets = Budgets(self._pool)
        day_counts = DayCounts(self._pool, self._calls)
        return Admitter(self._calls, self.insist, self.policies, budgets, day_counts, tokens)

    async def do(self, job: Job) -> Done:
        """Everything asked for, and whatever is owed paid."""
        done = Done()
        if job.journal and self.journal is None:
            self.journal = JournalWriter.open(Path(job.journal), "simulated")
            self.admitter = self._admitter(Tokens(mark_of(self.journal.directory)))
        done.began = time.monotonic()
        if job.hammer_s:
            until = done.began + job.hammer_s
            await asyncio.gather(*(self._hammer(job, until, done) for _ in range(job.requests)))
        else:
            chance = random.Random(job.seed)
            slots = asyncio.Semaphore(job.at_once)
            asked = [drawn(job, chance) for _ in range(job.requests)]
            await asyncio.gather(*(self._request(job, each, slots, done) for each in asked))
        done.ended = time.monotonic()
        for _ in range(int(job.give_up_s / PAUSE_S)):
            if not self.insist.owed:
                break
            await asyncio.sleep(PAUSE_S)
        done.owed = self.insist.owed
        return done

    async def _admit(self, job: Job, asked: Asked, request_id: UUID) -> Admission:
        digest = bytes.fromhex(job.digest)
        policy = await self.policies.find(digest)
        if policy is None:
            raise CallerError("key_unknown", "No such key.", status=401)
        return await self.admitter.admit(request_id, digest, policy, asked)

    async def _hammer(self, job: Job, until: float, done: Done) -> None:
        asked = Asked(0, 0, "ok")
        while time.monotonic() < until:
            try:
                admission = await self._admit(job, asked, uuid7())
            except LimitReached as refused:
                _count(done, refused.code)
            except WorldError as away:
                _count(done, away.code)
            else:
                done.settled.append((time.monotonic(), 1, admission.epoch))

    async def _request(self, job: Job, asked: Asked, slots: asyncio.Semaphore, done: Done) -> None:
        """As a client does that comes back when it is told to."""
        give_up_at = time.monotonic() + job.give_up_s
        async with slots:
            while time.monotonic() < give_up_at:
                try:
                    await self._once(job, asked, done)
                    return
                except CallerError as refused:
                    if refused.status not in (402, 429):
                        raise
                    if refused.status == 402:
                        done.refused.append((time.monotonic(), asked.reserved_nano))
                        return
                    _count(done, refused.code)
                except WorldError as away:
                    _count(done, away.code)
                await asyncio.sleep(RETRY_PAUSE_S * (0.5 + random.random()))
        done.gave_up += 1

    async def _once(self, job: Job, asked: Asked, done: Done) -> None:
        request_id = uuid7()
        if asked.ending == "cancelled before it was admitted":
            task = asyncio.ensure_future(self._admit(job, asked, request_id))
            await asyncio.sleep(0)
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
                if task.cancelled() or task.exception() is not None:
                    return
            admission = task.result()
        else:
            admission = await self._admit(job, asked, request_id)
        if self.journal is not None:
            self.journal.append(admitted(admission))
            await self.journal.commit()
        await asyncio.sleep(job.lasts_s * random.random())
        cost_nano = asked.cost_nano if asked.ending == "ok" else 0
        # Told before: whoever is refused from now on may be refused for it.
        done.settled.append((time.monotonic(), cost_nano, admission.epoch))
        if self.journal is not None:
            self.journal.append(settled(admission, cost_nano, asked.ending))
        self.admitter.release(admission, Worst(cost_nano, 0, 0))
        if self.journal is not None:
            await self.journal.commit()


def drawn(job: Job, chance: random.Random) -> Asked:
    """A request, by the job's seed."""
    reserved_nano = chance.randint(*job.reserved_nano)
    cost_nano = round(reserved_nano * chance.uniform(job.cost_share, 1))
    at = chance.random()
    if at < job.cancelled:
        ending = chance.choice(("cancelled", "cancelled before it was admitted"))
    else:
        ending = "error" if at < job.cancelled + job.failed else "ok"
    return Asked(reserved_nano, cost_nano, ending)


def admitted(admission: Admission) -> usage.Admit:
    """Its ADMIT. A request is priced by itself, which is what its checkpoint would cost."""
    policy = admission.policy
    return usage.Admit(
        request_id=admission.request_id,
        tenant_id=policy.tenant_id,
        project_id=policy.project_id,
        key_id=policy.key_id,
        model="tiny-lm",
        surface="openai.chat",
        stream=False,
        currency=policy.currency,
        price_version_id=policy.price_version_id,
        input_token_pico=0,
        output_token_pico=0,
        request_pico=0,
        reserved_nano=admission.reserved_nano,
        admitted_at_ms=admission.admitted_at_ms,
        epoch=admission.epoch,
        reservation=admission.reservation.decode(),
    )


def settled(admission: Admission, cost_nano: int, ending: str) -> usage.Settle:
    """Its SETTLE: the one of an orphan, with what it cost."""
    orphan = usage.settle_orphan(admitted(admission), None, clock.now_ms())
    status: usage.Status = "ok"
    if ending != "ok":
        status = "error" if ending == "error" else "cancelled"
    return msgspec.structs.replace(
        orphan, cost_nano=cost_nano, status=status, provenance="units", requests=1
    )


def _count(done: Done, code: str) -> None:
    done.told[code] = done.told.get(code, 0) + 1


async def main() -> None:
    """Jobs from standard input until it ends."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        pool = AsyncConnectionPool(
            os.environ["GATEWAY_DATABASE_URL"],
            min_size=1,
            max_size=CONNECTIONS_MAX,
            kwargs={"autocommit": True},
            open=False,
        )
        await stack.enter_async_context(pool)
        timeout_s = int(os.environ["ADMISSION_TIMEOUT_MS"]) / 1000
        calls = LuaCalls(os.environ["ADMISSION_REDIS_URL"], SCRIPTS, timeout_s)
        calls.start()
        stack.push_async_callback(calls.close)
        insist = Insist(calls)
        insist.start()
        stack.push_async_callback(insist.close)
        worker = Worker(pool, calls, insist)
        while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
            done = await worker.do(msgspec.json.decode(line, type=Job))
            sys.stdout.buffer.write(msgspec.json.encode(done) + b"\n")
            sys.stdout.buffer.flush()
        if worker.journal is not None:
            await worker.journal.close()


if __name__ == "__main__":
    asyncio.run(main())
