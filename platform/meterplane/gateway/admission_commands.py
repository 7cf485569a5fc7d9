"""The calls of admission as Redis reads them, prepared once for a policy, a model and a window.

What names the key, its organisation and its limits is the same for every request of a policy: it is
encoded once. A call adds its token and its worst case. The keys are those of
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

import msgspec

from meterplane.contracts import admission_keys as names
from meterplane.contracts import reservations
from meterplane.contracts.policy import KeyPolicy
from meterplane.gateway.applied_limits import AppliedLimit, applied_limits
from meterplane.gateway.lua_calls import Script
from meterplane.kernel.limits import RESERVATION_TTL_S

ADMIT = Script.beside_us("admission.lua")
SETTLE = Script(reservations.SETTLE)
CREDIT = Script(reservations.CREDIT)
HIT = Script.beside_us("hit.lua")
SCRIPTS = (ADMIT, SETTLE, CREDIT, HIT)

FIXED_KEYS = 4  # of admission.lua
FIXED_ARGUMENTS = 8
TOKEN_CHARS = 20
_NO_ID = UUID(int=0)


class Worst(msgspec.Struct, frozen=True, gc=False):
    """The most a request can use: its cost in nano, its input and its output tokens."""

    nano: int
    tokens_in: int
    tokens_out: int


NOTHING = Worst(0, 0, 0)


class Tokens:
    """Tokens of one worker, none twice: eight random digits of its own, its mark, and a count."""

    def __init__(self, mark: str = "") -> None:
        self._prefix = (mark or secrets.token_hex(reservations.MARK_CHARS // 2)).encode()
        self._count = itertools.count()

    def mint(self) -> bytes:
        """`TOKEN_CHARS` hexadecimal digits; the count lasts 700 years at 12,000 a second."""
        return b"%b%012x" % (self._prefix, next(self._count))


class PreparedCommands:
    """All that is constant of one policy's calls for one model while its windows last.

    Attributes:
        policy: what was prepared. Whoever holds this compares by identity.
        limits: what applies, in the order in which `admission.lua` is told of it.
        from_ms, until_ms: when it was prepared, and until when it holds.
        holds: whether an admission leaves a reservation.
        fixed_keys: those that are there for any limits.
    """

    __slots__ = ("_admit_head", "_admit_held", "_admit_read", "_admit_rules", "_admit_used",
                 "_record_bytes", "_settle_head", "_settle_limits", "_settle_rules", "fixed_keys",
                 "from_ms", "holds", "limits", "policy", "until_ms")  # fmt: skip

    def __init__(self, policy: KeyPolicy, model: str, at_ms: int) -> None:
        tenant_id = policy.tenant_id
        self.policy = policy
        self.from_ms = at_ms
        self.limits, self.until_ms = applied_limits(policy, model, at_ms)
        self.holds = any(applied.gives_back for applied in self.limits)
        limit_keys = [applied.key for applied in self.limits]
        # Pools, which take no arguments, come last.
        rules = ["".join(applied.rule for applied in self.limits)]
        rules += [argument for applied in self.limits for argument in applied.arguments]
        # A reservation's name is as long as any other's: everything but its end is constant.
        sample = f"{_NO_ID}:{'0' * TOKEN_CHARS}"
        reservation = names.reservation(tenant_id, _NO_ID).replace(str(_NO_ID), sample)
        named = _bulks([reservation]).removesuffix(f"{sample}\r\n".encode())
        self.fixed_keys = [names.version(tenant_id, policy.key_id), names.epoch(tenant_id)]
        self._admit_head = (
            _called(ADMIT, FIXED_KEYS + len(limit_keys), FIXED_ARGUMENTS + len(rules))
            + _bulks(self.fixed_keys)
            + named
        )
        limits = _bulks([names.hits(tenant_id), *limit_keys, str(policy.version)])
        self._admit_read = b"\r\n" + limits
        self._admit_held = self._admit_read + _bulks([""])
        lifetime = _bulks([str(RESERVATION_TTL_S if self.holds else 0)])
        self._admit_used = b"$%d\r\n%%b\r\n" % TOKEN_CHARS + lifetime + b"%b$%d\r\n%b"
        self._settle_rules = _bulks(rules)
        record = f"\n{' '.join(limit_keys)}\n{' '.join(rules)}".encode()
        self._record_bytes = len(record)
        self._admit_rules = record + b"\r\n" + self._settle_rules
        self._settle_head = _called(SETTLE, 1 + len(limit_keys), 3 + len(rules)) + named
        self._settle_limits = b"\r\n" + _bulks(limit_keys)

    def admit(self, reservation: bytes, worst: Worst, token: bytes, read_in: bytes = b"") -> bytes:
        """A call of `admission.lua`; `reservation` is `reserved_as(request_id, token)`.

        `read_in` is the epoch in which the policy was read, where it was not held before.
        """
        limits = self._admit_held
        if read_in:
            limits = b"%b$%d\r\n%b\r\n" % (self._admit_read, len(read_in), read_in)
        held = b"%d %d %d" % (worst.nano, worst.tokens_in, worst.tokens_out)
        record_bytes = len(held) + self._record_bytes
        used = self._admit_used % (token, _used(worst), record_bytes, held)
        return b"".join((self._admit_head, reservation, limits, used, self._admit_rules))

    def settle(self, reservation: bytes, used: Worst) -> bytes:
        """A call of `settle.lua` for what `admit` reserved."""
        return b"".join(
            (self._settle_head, reservation, self._settle_limits, _used(used), self._settle_rules)
        )


def _used(used: Worst) -> bytes:
    nano, tokens_in, tokens_out = b"%d" % used.nano, b"%d" % used.tokens_in, b"%d" % used.tokens_out
    return b"$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
        len(nano), nano, len(tokens_in), tokens_in, len(tokens_out), tokens_out,
    )  # fmt: skip


def reserved_as(request_id: UUID, token: bytes) -> bytes:
    """The end of a reservation's name."""
    return b"%b:%b" % (str(request_id).encode(), token)


def credit(
    policy: KeyPolicy,
    applied: AppliedLimit,
    epoch: str,
    grant_id: UUID,
    granted: reservations.Granted,
) -> bytes:
    """A call of `credit.lua`: a granted block for a pool, in the epoch it was found short in."""
    keys, arguments = reservations.credit_call(
        policy.tenant_id, applied.key, epoch, grant_id, granted
    )
    return CREDIT.command(keys, arguments)


def budget_hit(policy: KeyPolicy, applied: AppliedLimit) -> bytes:
    """A call of `hit.lua`: a budget refused a request."""
    return HIT.command([names.hits(policy.tenant_id)], [applied.key])


def _called(script: Script, keys: int, arguments: int) -> bytes:
    """The head of an EVALSHA, up to its first key."""
    parts = _bulks(["EVALSHA", script.sha, str(keys)])
    return b"*%d\r\n" % (3 + keys + arguments) + parts


def _bulks(texts: Sequence[str]) -> bytes:
    """RESP bulk strings."""
    return b"".join(b"$%d\r\n%b\r\n" % (len(each), each) for each in (t.encode() for t in texts))
