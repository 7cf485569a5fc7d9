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
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from meterplane.contracts import admission_keys as names
from meterplane.contracts.policy import Budget, KeyPolicy
from meterplane.gateway import errors
from meterplane.gateway.authenticate import check_usable
from meterplane.gateway.budgets import Budgets
from meterplane.gateway.insist import Insist
from meterplane.gateway.lua_calls import LuaCalls, LuaUnavailable, Script
from meterplane.gateway.policies import Policies
from meterplane.kernel import clock
from meterplane.kernel.errors import WorldError
from meterplane.kernel.ids import uuid7
from meterplane.kernel.invariant import ensure
from meterplane.kernel.limits import RESERVATION_TTL_S

ADMIT = Script("admission.lua")
SETTLE = Script("settle.lua")
CREDIT = Script("credit.lua")
SCRIPTS = [ADMIT, SETTLE, CREDIT]

MICROSECONDS_PER_MINUTE = 60_000_000
STALE_ROUNDS_MAX = 3  # a policy that changes three times during one admission
POOL_KEEP_S = 40 * 86_400  # a month, and the longest request after it
ROUNDS_MAX = 24  # three scopes to refill, while others take what was refilled

CostOf = Callable[[KeyPolicy], int]


@dataclass(frozen=True, slots=True)
class Admission:
    """A request that may be forwarded, and what it holds until it settles."""

    request_id: UUID
    policy: KeyPolicy
    reserved_nano: int
    remaining_requests: int
    pools: list[str] = field(default_factory=list)


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
    """Admits and settles for one worker."""

    def __init__(
        self, calls: LuaCalls, insist: Insist, policies: Policies, budgets: Budgets
    ) -> None:
        self._calls = calls
        self._insist = insist
        self._policies = policies
        self._budgets = budgets

    async def admit(
        self, request_id: UUID, digest: bytes, policy: KeyPolicy, cost_of: CostOf
    ) -> Admission:
        """Admit a request; `cost_of(policy)` is its worst case in nano under a policy.

        Raises `CallerError` 401 (revoked meanwhile), 402, 403, 404 (the model left the policy),
        429;
        `WorldError` 503 when Redis or, where it is needed, PostgreSQL does not answer.
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
        raise WorldError(
            "admission_contended", "Too many requests compete for this budget; try again."
        )

    async def _try(self, attempt: "_Attempt") -> Admission | None:
        """One call, and another if the policy was stale. None when a pool is short."""
        for _ in range(STALE_ROUNDS_MAX):
            policy, cost_nano = attempt.policy, attempt.cost_of(attempt.policy)
            ensure(cost_nano >= 0, "a reservation is not negative")
            window = budget_window()
            pools = [pool_name(policy, budget, window) for budget in policy.budgets]
            keys = _admission_keys(policy, attempt.request_id, pools)
            try:
                answer = await self._calls.call(
                    ADMIT, keys, _admission_arguments(policy, cost_nano, attempt.fresh)
                )
            except (LuaUnavailable, asyncio.CancelledError):
                self._owe_release(keys[3], pools, 0)
                raise
            verdict = answer[0].decode()
            if verdict == "ok":
                return Admission(attempt.request_id, policy, cost_nano, int(answer[1]), pools)
            if verdict == "rate":
                raise errors.rate_limited(-(-int(answer[1]) // 1_000_000) or 1)
            if verdict == "budget":
                attempt.short = policy.budgets[int(answer[1]) - 1]
                attempt.missing_nano = cost_nano - int(answer[2])
                attempt.epoch = answer[3].decode()
                return None
            attempt.policy, attempt.fresh = await self._reread(attempt.digest), True
        raise WorldError("policy_unsettled", "This key is being changed just now; try again.")

    async def _refill(self, attempt: "_Attempt") -> None:
        """Move one block to the short pool. Raises `CallerError` 402 when there is none."""
        policy, short, window = attempt.policy, attempt.short, budget_window()
        ensure(short is not None, "a refill follows a short pool")
        if short is None:
            return
        block_nano = await self._budgets.take(policy, short, window, attempt.missing_nano)
        if block_nano == 0:
            raise errors.budget_exceeded(short.scope)
        keys = [
            names.epoch(policy.tenant_id),
            names.grants(policy.tenant_id),
            pool_name(policy, short, window),
        ]
        arguments = [attempt.epoch, str(uuid7()), str(block_nano), str(POOL_KEEP_S)]
        try:
            await self._calls.call(CREDIT, keys, arguments)
        except (LuaUnavailable, asyncio.CancelledError):
            self._insist.owe(CREDIT, keys, arguments)
            raise

    async def settle(self, admission: Admission, cost_nano: int) -> None:
        """Give back what the reservation held too much: now, or when Redis answers again."""
        ensure(cost_nano <= admission.reserved_nano, "no request costs more than it reserved")
        if not admission.pools:
            return
        key = names.reservation(admission.policy.tenant_id, admission.request_id)
        try:
            await self._calls.call(SETTLE, [key, *admission.pools], [str(cost_nano)])
        except LuaUnavailable:
            self._owe_release(key, admission.pools, cost_nano)

    def _owe_release(self, reservation: str, pools: list[str], cost_nano: int) -> None:
        if pools:
            self._insist.owe(SETTLE, [reservation, *pools], [str(cost_nano)])

    async def _reread(self, digest: bytes) -> KeyPolicy:
        current = await self._policies.read_afresh(digest)
        if current is None:
            raise errors.key_unknown()
        check_usable(current)
        return current


def budget_window() -> str:
    """The calendar month now, UTC: `2026-11`."""
    return clock.now().strftime("%Y-%m")


def pool_name(policy: KeyPolicy, budget: Budget, window: str) -> str:
    return names.pool(policy.tenant_id, budget.scope, budget.scope_id, window)


def _admission_keys(policy: KeyPolicy, request_id: UUID, pools: list[str]) -> list[str]:
    return [
        names.version(policy.tenant_id, policy.key_id),
        names.rate(policy.tenant_id, policy.key_id),
        names.epoch(policy.tenant_id),
        names.reservation(policy.tenant_id, request_id),
        *pools,
    ]


def _admission_arguments(policy: KeyPolicy, cost_nano: int, fresh: bool) -> list[str]:
    rate = policy.rate
    interval_us = MICROSECONDS_PER_MINUTE // rate.requests_per_minute if rate else 0
    return [
        str(policy.version),
        "1" if fresh else "0",
        str(interval_us),
        str(rate.burst if rate else 0),
        str(cost_nano),
        str(RESERVATION_TTL_S),
        str(uuid7()),
    ]
