"""Admission: one atomic call decides version, limits and budgets, and reserves, or refuses.

Guarantees: nothing is admitted under a policy that is not current, above a limit, or beyond what
PostgreSQL granted for any budget of the key; nothing is admitted while Redis cannot be asked. A
reservation is settled once: the second settle finds nothing to give back. Nobody is told that a
budget is spent while what is left of it, what others hold or a block on its way covers the request.

A call that Redis did not answer may have happened. What it would have reserved, or credited, is
owed from then on (`insist.py`), so that a stall withholds nothing for good.

A pool that is short is not a refusal yet: a block is taken from PostgreSQL (`budgets.py`) and the
call repeated. Where PostgreSQL grants nothing more, what open requests hold may come back: whoever
would fit then waits a moment for it. After that a request that named no bound on its output is
given the output that still fits. Only then is it refused.
"""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import msgspec

from meterplane.contracts.policy import KeyPolicy
from meterplane.contracts.reservations import Granted
from meterplane.gateway import errors
from meterplane.gateway.admission_commands import (
    NOTHING,
    SCRIPTS,
    PreparedCommands,
    Tokens,
    Worst,
    budget_hit,
    credit,
    reserved_as,
    spelt,
)
from meterplane.gateway.applied_limits import AppliedLimit
from meterplane.gateway.authenticate import check_usable
from meterplane.gateway.budgets import Budgets
from meterplane.gateway.day_counts import DayCounts
from meterplane.gateway.insist import Insist
from meterplane.gateway.limit_refusals import (
    LimitReached,
    budget_exceeded,
    budget_rebuilding,
    budget_reserved,
)
from meterplane.gateway.lua_calls import LuaCalls, LuaUnavailable
from meterplane.gateway.policies import Policies
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.ids import uuid7
from meterplane.kernel.invariant import ensure

__all__ = ["SCRIPTS", "Admission", "Admitter", "Asked"]

STALE_ROUNDS_MAX = 3  # a policy that changes three times during one admission
ROUNDS_MAX = 128  # eight budgets to refill, while others take what was refilled
UNDER_WAY_PAUSE_S = 0.003  # for another worker's block to reach the pool
PREPARED_MAX = 4096  # x ~4 kB = 16 MB; one more costs its key 30 us
HELD_WAIT_S = 1.0  # for what others hold to come back
HELD_PAUSE_S = 0.03
HELD_WAITERS_MAX = 64  # of one organisation: 64 / 0.03 s = 2,000 calls a second at the most


class Asked(Protocol):
    """What a request asks for. `model` as it was asked for."""

    model: str

    def worst(self, policy: KeyPolicy) -> Worst:
        """The most it can use under a policy. Raises what makes it impossible there."""
        ...

    def fit(self, policy: KeyPolicy, room_nano: int) -> int | None:
        """Ask for less output, so that it costs at most `room_nano`; its worst case then.

        None where the caller named what it wants, or nothing worth having would fit.
        """
        ...

    def fits(self, policy: KeyPolicy, room_nano: int) -> bool:
        """Whether `fit` would have an answer. Changes nothing."""
        ...


class Admission(msgspec.Struct, frozen=True, gc=False):
    """A request that may be forwarded, and what it holds until it settles.

    `left` is what is left of each of `prepared.limits`: of a budget, less what was ever granted;
    None where nothing was. `admitted_at_ms` is the instant whose windows it counts in.
    """

    request_id: UUID
    policy: KeyPolicy
    reserved_nano: int
    left: list[int | None]
    epoch: str
    reservation: bytes
    prepared: PreparedCommands
    admitted_at_ms: int


@dataclass(slots=True)
class _Attempt:
    """What is known so far of one admission. `short` is the pool that was found short, `read_in`
    the epoch of Redis that had begun before the policy was read; empty for one that was held.
    """

    request_id: UUID
    digest: bytes
    policy: KeyPolicy
    asked: Asked
    read_in: bytes = b""
    short: AppliedLimit | None = None
    cost_nano: int = 0
    left_nano: int = 0
    held_nano: int = 0
    credited_nano: int = 0
    revision: int = 0
    epoch: str = ""


class _OthersHoldIt(Exception):
    """It would fit if what open requests hold came back."""


class Admitter:
    """Admits and settles for one worker. Its counts are of outcomes told to callers."""

    def __init__(
        self,
        calls: LuaCalls,
        insist: Insist,
        policies: Policies,
        budgets: Budgets,
        day_counts: DayCounts,
        tokens: Tokens | None = None,
    ) -> None:
        self._calls = calls
        self._insist = insist
        self._policies = policies
        self._budgets = budgets
        self._day_counts = day_counts
        self._tokens = tokens or Tokens()
        self._prepared: OrderedDict[tuple[bytes, str], PreparedCommands] = OrderedDict()
        self._waiters: dict[UUID, int] = {}
        self.admitted = 0
        self.released = 0
        self.refused_rate = 0
        self.refused_budget = 0
        self.refused_key = 0
        self.stale = 0  # policies found stale, each read afresh
        self.fitted = 0  # given less output than they might have had
        self.contended = 0
        self.unavailable = 0

    async def admit(
        self, request_id: UUID, digest: bytes, policy: KeyPolicy, asked: Asked
    ) -> Admission:
        """Admit a request.

        Raises `CallerError` 401 (revoked meanwhile), 402, 403, 404 (the model left the policy),
        429; `WorldError` 503 when Redis or, where it is needed, PostgreSQL does not answer; what
        `asked.worst` raises.
        """
        attempt = _Attempt(request_id, digest, policy, asked)
        admission = await self._try(attempt)
        if admission is not None:
            return admission
        try:
            return await self._refill_and_try(attempt)
        except _OthersHoldIt:
            return await self._wait_and_try(attempt)

    async def _wait_and_try(self, attempt: _Attempt) -> Admission:
        """While others' reservations stand in the way, wait for them, a moment."""
        tenant_id = attempt.policy.tenant_id
        waiting = self._waiters.get(tenant_id, 0)
        give_up_at = time.monotonic() + HELD_WAIT_S
        self._waiters[tenant_id] = waiting + 1
        try:
            while waiting < HELD_WAITERS_MAX and time.monotonic() < give_up_at:
                await asyncio.sleep(HELD_PAUSE_S)
                try:
                    return await self._try(attempt) or await self._refill_and_try(attempt)
                except _OthersHoldIt:
                    continue
        finally:
            self._waiters[tenant_id] -= 1
            if not self._waiters[tenant_id]:
                del self._waiters[tenant_id]
        return await self._refill_and_try(attempt, last=True)

    async def _refill_and_try(self, attempt: _Attempt, *, last: bool = False) -> Admission:
        """Until it passes or its budget is exhausted. `last`: what others hold counts as gone."""
        # One request at a time refills an organisation's pools, so that a burst does not take a
        # block each; whoever waited finds the pool refilled.
        async with self._budgets.refilling(attempt.policy.tenant_id):
            for _ in range(ROUNDS_MAX):
                admission = await self._try(attempt)
                if admission is not None:
                    return admission
                await self._refill(attempt, last)
        self.contended += 1
        raise WorldError(
            "admission_contended", "Too many requests compete for this budget; try again."
        )

    async def _try(self, attempt: _Attempt) -> Admission | None:
        """One call, and another if the policy was stale. None when a pool is short."""
        for _ in range(STALE_ROUNDS_MAX):
            policy = attempt.policy
            worst = attempt.asked.worst(policy)
            ensure(worst.nano >= 0, "a reservation is not negative")
            now_ms = clock.now_ms()
            prepared = self._prepare(attempt.digest, policy, attempt.asked.model, now_ms)
            token = self._tokens.mint()
            reservation = reserved_as(attempt.request_id, token)
            admits = prepared.admits
            if attempt.read_in:
                admits = prepared.admits_read_in(attempt.read_in)
            try:
                epoch, answer = await self._calls.ask_together(
                    admits, (reservation, spelt(worst), token)
                )
            except (LuaUnavailable, asyncio.CancelledError) as failure:
                self.unavailable += isinstance(failure, LuaUnavailable)
                if prepared.holds:
                    self._insist.owe(prepared.settles.command([(reservation, spelt(NOTHING))]))
                raise
            verdict = answer[0]
            if verdict == b"ok":
                self.admitted += 1
                return Admission(
                    attempt.request_id,
                    policy,
                    worst.nano,
                    answer[1:],
                    epoch.decode(),
                    reservation,
                    prepared,
                    now_ms,
                )
            if verdict == b"limit":
                self.refused_rate += 1
                raise LimitReached(prepared.limits[answer[1] - 1], answer[2])
            if verdict == b"budget":
                attempt.short = prepared.limits[answer[1] - 1]
                attempt.cost_nano, attempt.left_nano = worst.nano, int(answer[2])
                attempt.held_nano, attempt.credited_nano = int(answer[3]), int(answer[4])
                attempt.epoch, attempt.revision = epoch.decode(), int(answer[5])
                return None
            ensure(verdict == b"stale", "admission.lua has four answers")
            self.stale += 1
            attempt.policy, attempt.read_in = await self._reread(attempt.digest), epoch
            await self._day_counts.start(attempt.policy)
        self.contended += 1
        raise WorldError("policy_unsettled", "This key is being changed just now; try again.")

    async def _refill(self, attempt: _Attempt, last: bool) -> None:
        """Move one block to the short pool, or ask for less. Raises when neither can be."""
        policy, short = attempt.policy, attempt.short
        ensure(short is not None, "a refill follows a short pool")
        if short is None:
            return
        grant_id = uuid7()
        missing_nano = attempt.cost_nano - attempt.left_nano
        granted = await self._budgets.take(
            policy, short, missing_nano, attempt.epoch, grant_id, attempt.revision
        )
        if granted.under_way:
            await asyncio.sleep(UNDER_WAY_PAUSE_S)
            return
        if granted.block_nano == 0:
            # A block that another worker took and has not credited yet may cover this request.
            attempt.held_nano += max(0, granted.epoch_nano - attempt.credited_nano)
            self._ask_for_less(attempt, short, granted, last)
            return
        command = credit(policy, short, attempt.epoch, grant_id, granted)
        try:
            await self._calls.ask(command)
        except (LuaUnavailable, asyncio.CancelledError) as failure:
            self.unavailable += isinstance(failure, LuaUnavailable)
            self._insist.owe(command)
            raise

    def _ask_for_less(
        self, attempt: _Attempt, short: AppliedLimit, granted: Granted, last: bool
    ) -> None:
        """The limit holds no other block: wait, make do with what is left, or be refused."""
        room_nano = attempt.left_nano + max(0, short.amount - granted.granted_nano)
        if attempt.held_nano and attempt.cost_nano <= room_nano + attempt.held_nano and not last:
            raise _OthersHoldIt
        if granted.stranded:
            raise budget_rebuilding()
        if attempt.asked.fit(attempt.policy, room_nano) is not None:
            self.fitted += 1
            return
        # Less output than it might have had is still an answer: not the last word while others run.
        held_by_others = attempt.held_nano and attempt.asked.fits(
            attempt.policy, room_nano + attempt.held_nano
        )
        if held_by_others and not last:
            raise _OthersHoldIt
        self.refused_budget += 1
        if held_by_others:
            raise budget_reserved(short)
        # Nobody waits for it. One that Redis does not hear of is one alert less, no budget.
        self._calls.tell(budget_hit(attempt.policy, short), lambda command: None)
        raise budget_exceeded(short, clock.now(), room_nano, attempt.policy.currency)

    def release(self, admission: Admission, used: Worst) -> "asyncio.Future[None] | None":
        """Give back what the reservation held too much: now, or when Redis answers again.

        Needs nobody to wait: what Redis does not answer is owed. The future, None where nothing
        was reserved, is done when Redis has answered or the release is owed; it never raises.
        """
        ensure(used.nano <= admission.reserved_nano, "no request costs more than it reserved")
        self.released += 1
        if not admission.prepared.holds:
            return None
        settles, part = admission.prepared.settles, (admission.reservation, spelt(used))
        return self._calls.tell_together(settles, part, self._insist.owe)

    async def settle(self, admission: Admission, used: Worst) -> None:
        """`release`, and wait for it."""
        done = self.release(admission, used)
        if done is not None:
            await done

    def _prepare(
        self, digest: bytes, policy: KeyPolicy, model: str, now_ms: int
    ) -> PreparedCommands:
        """The calls of this very policy for a model, now. Kept by the whole digest of its key."""
        name = (digest, model)
        prepared = self._prepared.get(name)
        if (
            prepared is not None
            and prepared.policy is policy
            and prepared.from_ms <= now_ms < prepared.until_ms
        ):
            self._prepared.move_to_end(name)
            return prepared
        prepared = self._prepared[name] = PreparedCommands(policy, model, now_ms)
        self._prepared.move_to_end(name)
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
