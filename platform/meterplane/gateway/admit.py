"""Admission: one atomic call decides version, rate and every budget, and reserves, or refuses.

Guarantees: nothing is admitted under a policy that is not current, above a rate, or beyond what
PostgreSQL granted for any budget of the key; nothing is admitted while Redis cannot be asked. A
reservation is settled once: the second settle finds nothing to give back.

A call that Redis did not answer may have happened. What it would have reserved, or credited, is
owed from then on (`insist.py`), so that a stall withholds nothing for good.

A pool that is short is not a refusal yet: a block is taken from PostgreSQL (`budgets.py`) and the
call repeated. The refusal comes when PostgreSQL grants nothing more.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import msgspec

from meterplane.contracts.policy import Budget, KeyPolicy
from meterplane.gateway import errors
from meterplane.gateway.admission_commands import (
    SCRIPTS,
    PreparedCommands,
    Tokens,
    credit,
    pool_name,
    reserved_as,
)
from meterplane.gateway.authenticate import check_usable
from meterplane.gateway.budgets import Budgets
from meterplane.gateway.insist import Insist
from meterplane.gateway.lua_calls import LuaCalls, LuaUnavailable
from meterplane.gateway.policies import Policies
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.ids import uuid7
from meterplane.kernel.invariant import ensure

__all__ = ["SCRIPTS", "Admission", "Admitter", "budget_window", "pool_name"]

STALE_ROUNDS_MAX = 3  # a policy that changes three times during one admission
POOL_KEEP_S = 40 * 86_400  # a month, and the longest request after it
ROUNDS_MAX = 24  # three scopes to refill, while others take what was refilled
PREPARED_MAX = 4096  # x ~2.5 kB = 10 MB; one more costs its key 20 us

CostOf = Callable[[KeyPolicy], int]


class Admission(msgspec.Struct, frozen=True, gc=False):
    """A request that may be forwarded, and what it holds until it settles.

    `pools` are the names of the pools it reserved `reserved_nano` in, each.
    """

    request_id: UUID
    policy: KeyPolicy
    reserved_nano: int
    remaining_requests: int
    pools: list[str]
    reservation: bytes
    prepared: PreparedCommands


@dataclass(slots=True)
class _Attempt:
    """What is known so far of one admission."""

    request_id: UUID
    digest: bytes
    policy: KeyPolicy
    cost_of: CostOf
    fresh: bool = False
    short: Budget | None = None
    missing_nano: int = 0
    epoch: str = ""


class Admitter:
    """Admits and settles for one worker. Its counts are of outcomes told to callers."""

    def __init__(
        self, calls: LuaCalls, insist: Insist, policies: Policies, budgets: Budgets
    ) -> None:
        self._calls = calls
        self._insist = insist
        self._policies = policies
        self._budgets = budgets
        self._tokens = Tokens()
        self._prepared: OrderedDict[bytes, PreparedCommands] = OrderedDict()
        self._window, self._window_ns = "", range(0)
        self.admitted = 0
        self.released = 0
        self.refused_rate = 0
        self.refused_budget = 0
        self.refused_key = 0
        self.stale = 0  # policies found stale, each read afresh
        self.contended = 0
        self.unavailable = 0

    async def admit(
        self, request_id: UUID, digest: bytes, policy: KeyPolicy, cost_of: CostOf
    ) -> Admission:
        """Admit a request; `cost_of(policy)` is its worst case in nano under a policy.

        Raises `CallerError` 401 (revoked meanwhile), 402, 403, 404 (the model left the policy),
        429; `WorldError` 503 when Redis or, where it is needed, PostgreSQL does not answer; what
        `cost_of` raises.
        """
        attempt = _Attempt(request_id, digest, policy, cost_of)
        admission = await self._try(attempt)
        if admission is not None:
            return admission
        # A pool is short. One request at a time refills an organisation's pools, so that a burst
        # does not take a block each; whoever waited finds the pool refilled.
        async with self._budgets.refilling(policy.tenant_id):
            for _ in range(ROUNDS_MAX):
                admission = await self._try(attempt)
                if admission is not None:
                    return admission
                await self._refill(attempt)
        self.contended += 1
        raise WorldError(
            "admission_contended", "Too many requests compete for this budget; try again."
        )

    async def _try(self, attempt: _Attempt) -> Admission | None:
        """One call, and another if the policy was stale. None when a pool is short."""
        for _ in range(STALE_ROUNDS_MAX):
            policy = attempt.policy
            cost_nano = attempt.cost_of(policy)
            ensure(cost_nano >= 0, "a reservation is not negative")
            prepared = self._prepare(attempt.digest, policy)
            token = self._tokens.mint()
            reservation = reserved_as(attempt.request_id, token)
            try:
                answer = await self._calls.ask(
                    prepared.admit(reservation, cost_nano, token, attempt.fresh)
                )
            except (LuaUnavailable, asyncio.CancelledError) as failure:
                self.unavailable += isinstance(failure, LuaUnavailable)
                if prepared.pools:
                    self._insist.owe(prepared.settle(reservation, 0))
                raise
            verdict = answer[0]
            if verdict == b"ok":
                self.admitted += 1
                return Admission(
                    attempt.request_id,
                    policy,
                    cost_nano,
                    answer[1],
                    prepared.pools,
                    reservation,
                    prepared,
                )
            if verdict == b"rate":
                self.refused_rate += 1
                raise errors.rate_limited(-(-int(answer[1]) // 1_000_000) or 1)
            if verdict == b"budget":
                attempt.short = policy.budgets[int(answer[1]) - 1]
                attempt.missing_nano = cost_nano - int(answer[2])
                attempt.epoch = answer[3].decode()
                return None
            ensure(verdict == b"stale", "admission.lua has four answers")
            self.stale += 1
            attempt.policy, attempt.fresh = await self._reread(attempt.digest), True
        self.contended += 1
        raise WorldError("policy_unsettled", "This key is being changed just now; try again.")

    async def _refill(self, attempt: _Attempt) -> None:
        """Move one block to the short pool. Raises `CallerError` 402 when there is none."""
        policy, short, window = attempt.policy, attempt.short, budget_window()
        ensure(short is not None, "a refill follows a short pool")
        if short is None:
            return
        block_nano = await self._budgets.take(policy, short, window, attempt.missing_nano)
        if block_nano == 0:
            self.refused_budget += 1
            raise errors.budget_exceeded(short.scope)
        pool = pool_name(policy, short, window)
        command = credit(policy, pool, attempt.epoch, uuid7(), block_nano, POOL_KEEP_S)
        try:
            await self._calls.ask(command)
        except (LuaUnavailable, asyncio.CancelledError) as failure:
            self.unavailable += isinstance(failure, LuaUnavailable)
            self._insist.owe(command)
            raise

    def release(self, admission: Admission, cost_nano: int) -> "asyncio.Future[None] | None":
        """Give back what the reservation held too much: now, or when Redis answers again.

        Needs nobody to wait: what Redis does not answer is owed. The future, None where nothing
        was reserved, is done when Redis has answered or the release is owed; it never raises.
        """
        ensure(cost_nano <= admission.reserved_nano, "no request costs more than it reserved")
        self.released += 1
        if not admission.pools:
            return None
        command = admission.prepared.settle(admission.reservation, cost_nano)
        return self._calls.tell(command, self._insist.owe)

    async def settle(self, admission: Admission, cost_nano: int) -> None:
        """`release`, and wait for it."""
        done = self.release(admission, cost_nano)
        if done is not None:
            await done

    def _prepare(self, digest: bytes, policy: KeyPolicy) -> PreparedCommands:
        """The calls of this very policy in this month. Kept by the whole digest of its key."""
        now_ns = clock.now_ns()
        if now_ns not in self._window_ns:
            self._window, self._window_ns = budget_window(), _month_ns()
        prepared = self._prepared.get(digest)
        if prepared is not None and prepared.policy is policy and prepared.window is self._window:
            self._prepared.move_to_end(digest)
            return prepared
        prepared = self._prepared[digest] = PreparedCommands(policy, self._window)
        self._prepared.move_to_end(digest)
        if len(self._prepared) > PREPARED_MAX:
            self._prepared.popitem(last=False)
        return prepared

    async def _reread(self, digest: bytes) -> KeyPolicy:
        current = await self._policies.read_afresh(digest)
        try:
            if current is None:
                raise errors.key_unknown()
            check_usable(current)
        except CallerError:
            self.refused_key += 1
            raise
        return current


def budget_window() -> str:
    """The calendar month now, UTC: `2026-11`."""
    return clock.now().strftime("%Y-%m")


def _month_ns() -> range:
    """The calendar month now, UTC, in nanoseconds since the epoch."""
    begins = clock.now().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    ends = (begins + timedelta(days=31)).replace(day=1)
    return range(clock.to_ms(begins) * 1_000_000, clock.to_ms(ends) * 1_000_000)
