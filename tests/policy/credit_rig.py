"""A tenant held to its credit, and a gateway's admission in this process: the real one, over the
real Redis and PostgreSQL, whose clock is the test's."""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import datetime

from psycopg_pool import AsyncConnectionPool

from meterplane.gateway.admission_commands import SCRIPTS, Worst
from meterplane.gateway.admit import Admitter
from meterplane.gateway.budgets import Budgets
from meterplane.gateway.day_counts import DayCounts
from meterplane.gateway.insist import Insist
from meterplane.gateway.lua_calls import LuaCalls
from meterplane.gateway.policies import Policies
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.ids import uuid7
from tenants.models import ApiKey
from tenants.scoping import tenant_scope
from tests import environment
from tests.billing.world import ingest, used
from tests.gateway.admission_bench import Request

TOKEN_NANO = 500  # of minilm's input
CENT_NANO = 10_000_000


@dataclass(frozen=True, slots=True)
class Served:
    """A request that was admitted, as its journal will tell of it."""

    at: datetime
    cost_nano: int
    epoch: str


class Gateway:
    """Admits and settles for one key. What it served waits in `journal` to be taken in."""

    def __init__(self, redis_url, tenant, version):
        self.tenant, self._version = tenant, version
        with tenant_scope(tenant.id):
            self._digest = bytes(ApiKey.objects.get(id=tenant.key_id).digest)
        self._runner = asyncio.Runner()
        self._redis_url = redis_url
        self._runner.run(self._open())
        self.journal: list[Served] = []
        self.open = []

    async def _open(self):
        self._database = AsyncConnectionPool(
            environment.database_url("meterplane_gateway"),
            min_size=1,
            max_size=4,
            open=False,
            kwargs={"autocommit": True},
        )
        await self._database.open(wait=True)
        self._calls = LuaCalls(self._redis_url, SCRIPTS)
        self._calls.start()
        self._insist = Insist(self._calls)
        self._insist.start()
        self._policies = Policies(self._database)
        self._budgets = Budgets(self._database)
        self._admitter = Admitter(
            self._calls,
            self._insist,
            self._policies,
            self._budgets,
            DayCounts(self._database, self._calls),
        )

    def close(self):
        self._runner.run(self._close())
        self._runner.close()

    async def _close(self):
        await self._insist.close()
        with contextlib.suppress(Exception):
            await self._calls.close()
        await self._database.close()

    def ask(self, *costs_nano, uses=1.0, hold=False):
        """Ask for all at once; what each was told: 200, or the status it was refused with.

        Each then uses all of what it reserved, or a part; held, it goes on running (`end`).
        """
        return self._runner.run(self._ask(costs_nano, uses, hold))

    async def _ask(self, costs_nano, uses, hold):
        return await asyncio.gather(*(self._one(each, uses, hold) for each in costs_nano))

    async def _one(self, cost_nano, uses, hold):
        try:
            policy = await self._policies.find(self._digest)
            admission = await self._admitter.admit(
                uuid7(), self._digest, policy, Request(cost_nano)
            )
        except (CallerError, WorldError) as refused:
            return refused.status
        used_nano = int(cost_nano * uses) // TOKEN_NANO * TOKEN_NANO
        if hold:
            self.open.append((admission, used_nano))
            return 200
        await self._end(admission, used_nano)
        return 200

    async def _end(self, admission, used_nano):
        await self._admitter.settle(admission, Worst(used_nano, 0, 0))
        at = clock.from_ms(admission.admitted_at_ms)
        self.journal.append(Served(at, used_nano, admission.epoch))

    def end(self):
        """What still runs ends."""

        async def all_of_them():
            for admission, used_nano in self.open:
                await self._end(admission, used_nano)
            self.open.clear()

        self._runner.run(all_of_them())

    def a_moment_passes(self):
        """A limit that refused is remembered for no longer."""
        self._budgets._exhausted.clear()

    def ship(self):
        """What the journal tells is taken in; what that was."""
        told = self.journal
        self.journal = []
        events = [
            used(
                self.tenant, self._version, each.at, "minilm",
                tokens_in=each.cost_nano // TOKEN_NANO, cost_nano=each.cost_nano,
                reserved_nano=each.cost_nano, epoch=each.epoch,
            )
            for each in told
        ]  # fmt: skip
        if events:
            ingest(*events)
        return told
