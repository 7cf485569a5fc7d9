"""Proof that the limiter limits, made before a worker says that it is ready.

A limiter that was deployed and lets everything through is found on the invoice. So each worker asks
the admission Redis it will use for what must be refused, as an organisation nobody is: a request
above a rate, one under a policy that is not current, one beyond what a budget was granted, and a
second spending of what was given back. Whatever is admitted there fails the proof.
"""

import logging
from uuid import UUID

from meterplane.contracts import admission_keys as names
from meterplane.contracts.policy import KeyPolicy, Limit
from meterplane.contracts.reservations import Granted
from meterplane.gateway.admission_commands import (
    PreparedCommands,
    Tokens,
    Worst,
    credit,
    reserved_as,
    spelt,
)
from meterplane.gateway.lua_calls import LuaCalls
from meterplane.gateway.redis_connection import pack
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7

log = logging.getLogger("meterplane.gateway")

GRANTED_NANO = 10


async def limiter_refuses(calls: LuaCalls) -> bool:
    """True if all that must be refused was. Raises `LuaUnavailable` when Redis does not answer."""
    proof = _Proof(calls)
    try:
        failed = await proof.failed()
    finally:
        calls.tell(pack("DEL", *proof.keys), lambda _: None)
    if failed:
        log.error("the limiter does not limit: %s", failed)
    return not failed


class _Proof:
    def __init__(self, calls: LuaCalls) -> None:
        self._calls = calls
        self._tokens = Tokens()
        self._tenant_id = uuid7()
        rate = self._limit("requests", "minute", 1)
        budget = self._limit("spend", "lifetime", GRANTED_NANO)
        self._rated = PreparedCommands(self._policy(1, [rate]), "", clock.now_ms())
        self._budgeted = PreparedCommands(self._policy(1, [budget]), "", clock.now_ms())
        self._superseding = PreparedCommands(self._policy(2, [rate]), "", clock.now_ms())
        self.keys = [
            *self._rated.fixed_keys,
            names.hits(self._tenant_id),
            names.grants(self._tenant_id),
            *(applied.key for made in (self._rated, self._budgeted) for applied in made.limits),
        ]

    def _limit(self, kind: str, window: str, amount: int) -> Limit:
        values = {"kind": kind, "window": window, "amount": amount}
        return Limit(level="organisation", scope_id=self._tenant_id, **values)  # type: ignore[arg-type]

    def _policy(self, version: int, limits: list[Limit]) -> KeyPolicy:
        return KeyPolicy(
            version=version,
            key_id=self._tenant_id,
            tenant_id=self._tenant_id,
            project_id=self._tenant_id,
            status="active",
            status_reason="",
            expires_at_ms=None,
            currency="USD",
            price_version_id=UUID(int=0),
            models={},
            limits=limits,
        )

    async def failed(self) -> str:
        """What went wrong; empty when all that must be refused was."""
        expected = [
            (self._rated, 0, False, b"stale"),  # nobody has told this Redis of it
            (self._rated, 0, True, b"ok"),
            (self._rated, 0, False, b"limit"),
            (self._superseding, 0, False, b"stale"),
            (self._budgeted, 1, False, b"budget"),
        ]
        epoch = b""
        for prepared, nano, read, verdict in expected:
            found, epoch, _ = await self._ask(prepared, nano, epoch if read else b"")
            if found != verdict:
                return f"{found!r} where {verdict!r} was due"
        return await self._failed_to_hold(epoch)

    async def _failed_to_hold(self, epoch: bytes) -> str:
        """With ten granted: ten are spent once, and what is given back is there once."""
        (pool,) = self._budgeted.limits
        granted = Granted(GRANTED_NANO, GRANTED_NANO, 1)
        command = credit(self._budgeted.policy, pool, epoch.decode(), uuid7(), granted)
        for _ in range(2):
            await self._calls.ask(command)  # the second time is none
        found, _, reservation = await self._ask(self._budgeted, GRANTED_NANO)
        if found != b"ok" or (await self._ask(self._budgeted, 1))[0] != b"budget":
            return "a budget does not end where its grant does"
        for _ in range(2):
            used = spelt(Worst(GRANTED_NANO - 1, 0, 0))
            await self._calls.ask_together(self._budgeted.settles, (reservation, used))
        if (await self._ask(self._budgeted, 2))[0] != b"budget":
            return "what was given back once is there twice"
        return ""

    async def _ask(
        self, prepared: PreparedCommands, nano: int, read_in: bytes = b""
    ) -> tuple[bytes, bytes, bytes]:
        """The verdict, the epoch, and the reservation."""
        token = self._tokens.mint()
        reservation = reserved_as(uuid7(), token)
        admits = prepared.admits_read_in(read_in) if read_in else prepared.admits
        part = (reservation, spelt(Worst(nano, 0, 0)), token)
        epoch, answer = await self._calls.ask_together(admits, part)
        return answer[0], epoch, reservation
