"""The calls of admission as Redis reads them, prepared once for a policy and a budget window.

What names the key, its rate, its organisation and its pools is the same for every request of a
policy: it is encoded once. A call adds its token and its worst case. The keys are those of
`contracts.admission_keys`, in the order of `admission.lua` and `settle.lua`.

Each call has a token of its own, which no other call of any worker has. It names two things:

- The reservation, after the request id. A request can come twice (a line of a batch that is tried
  again after a 503): what is owed for the first try must not release the second's reservation.
- The epoch to open if Redis knows none. A Redis that lost its memory between two calls must not
  come by the epoch it had before: a credit that is repeated would be credited in both lives.
"""

import itertools
import secrets
from collections.abc import Sequence
from uuid import UUID

from meterplane.contracts import admission_keys as names
from meterplane.contracts.policy import Budget, KeyPolicy
from meterplane.gateway.lua_calls import Script
from meterplane.kernel.limits import RESERVATION_TTL_S

ADMIT = Script.beside_us("admission.lua")
SETTLE = Script.beside_us("settle.lua")
CREDIT = Script.beside_us("credit.lua")
SCRIPTS = (ADMIT, SETTLE, CREDIT)

MICROSECONDS_PER_MINUTE = 60_000_000
ARGUMENTS_OF_ADMIT = 7
TOKEN_CHARS = 20
_NO_ID = UUID(int=0)


class Tokens:
    """Tokens of one worker, none twice: eight random digits of its own and a count."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(4).encode()
        self._count = itertools.count()

    def mint(self) -> bytes:
        """`TOKEN_CHARS` hexadecimal digits; the count lasts 700 years at 12,000 a second."""
        return b"%b%012x" % (self._prefix, next(self._count))


class PreparedCommands:
    """All that is constant of one policy's calls in one window.

    Attributes:
        policy: what was prepared. Whoever holds this compares by identity.
        window: the calendar month of the pools.
        pools: their names, in the order of the policy's budgets.
    """

    __slots__ = ("_admit_head", "_admit_pools", "_admit_tail", "_settle_head", "_settle_pools",
                 "policy", "pools", "window")  # fmt: skip

    def __init__(self, policy: KeyPolicy, window: str) -> None:
        tenant_id, rate = policy.tenant_id, policy.rate
        self.policy = policy
        self.window = window
        self.pools = [pool_name(policy, budget, window) for budget in policy.budgets]
        pools = _bulks(self.pools)
        # A reservation's name is as long as any other's: everything but its end is constant.
        sample = f"{_NO_ID}:{'0' * TOKEN_CHARS}"
        reservation = names.reservation(tenant_id, _NO_ID).replace(str(_NO_ID), sample)
        named = _bulks([reservation]).removesuffix(f"{sample}\r\n".encode())
        keys = [
            names.version(tenant_id, policy.key_id),
            names.rate(tenant_id, policy.key_id),
            names.epoch(tenant_id),
        ]
        count = len(keys) + 1 + len(self.pools)
        self._admit_head = _called(ADMIT, count, ARGUMENTS_OF_ADMIT) + _bulks(keys) + named
        interval_us = MICROSECONDS_PER_MINUTE // rate.requests_per_minute if rate else 0
        limits = _bulks([str(interval_us), str(rate.burst if rate else 0)])
        version = _bulks([str(policy.version)])
        # By `fresh`: whether the version was just read from PostgreSQL.
        self._admit_pools = tuple(
            b"\r\n" + pools + version + _bulks([flag]) + limits for flag in ("0", "1")
        )
        lifetime = _bulks([str(RESERVATION_TTL_S)])
        self._admit_tail = b"$%d\r\n%d\r\n" + lifetime + b"$%d\r\n%%b\r\n" % TOKEN_CHARS
        self._settle_head = _called(SETTLE, 1 + len(self.pools), 1) + named
        self._settle_pools = b"\r\n" + pools

    def admit(self, reservation: bytes, cost_nano: int, token: bytes, fresh: bool = False) -> bytes:
        """A call of `admission.lua`; `reservation` is `reserved_as(request_id, token)`."""
        tail = self._admit_tail % (len(str(cost_nano)), cost_nano, token)
        return b"".join((self._admit_head, reservation, self._admit_pools[fresh], tail))

    def settle(self, reservation: bytes, cost_nano: int) -> bytes:
        """A call of `settle.lua` for what `admit` reserved."""
        cost = b"$%d\r\n%d\r\n" % (len(str(cost_nano)), cost_nano)
        return b"".join((self._settle_head, reservation, self._settle_pools, cost))


def reserved_as(request_id: UUID, token: bytes) -> bytes:
    """The end of a reservation's name."""
    return b"%b:%b" % (str(request_id).encode(), token)


def pool_name(policy: KeyPolicy, budget: Budget, window: str) -> str:
    """The pool of one budget of a policy in a window."""
    return names.pool(policy.tenant_id, budget.scope, budget.scope_id, window)


def credit(
    policy: KeyPolicy, pool: str, epoch: str, grant_id: UUID, block_nano: int, keep_s: int
) -> bytes:
    """A call of `credit.lua`: a granted block for a pool, in the epoch it was found short in."""
    keys = [names.epoch(policy.tenant_id), names.grants(policy.tenant_id), pool]
    return CREDIT.command(keys, [epoch, str(grant_id), str(block_nano), str(keep_s)])


def _called(script: Script, keys: int, arguments: int) -> bytes:
    """The head of an EVALSHA, up to its first key."""
    parts = _bulks(["EVALSHA", script.sha, str(keys)])
    return b"*%d\r\n" % (3 + keys + arguments) + parts


def _bulks(texts: Sequence[str]) -> bytes:
    """RESP bulk strings, of ASCII text."""
    return "".join(f"${len(text)}\r\n{text}\r\n" for text in texts).encode("ascii")
