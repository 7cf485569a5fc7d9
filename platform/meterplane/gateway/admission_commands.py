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
from typing import Any
from uuid import UUID

import msgspec

from meterplane.contracts import admission_keys as names
from meterplane.contracts import reservations
from meterplane.contracts.policy import KeyPolicy
from meterplane.gateway.applied_limits import AppliedLimit, applied_limits
from meterplane.gateway.limit_headers import LimitHeaders
from meterplane.gateway.lua_calls import Script
from meterplane.kernel.limits import RESERVATION_TTL_S

ADMIT = Script.beside_us("admission.lua")
SETTLE = Script(reservations.SETTLE)
CREDIT = Script(reservations.CREDIT)
HIT = Script.beside_us("hit.lua")
SCRIPTS = (ADMIT, SETTLE, CREDIT, HIT)

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

    def renew(self, mark: str) -> None:
        """From now on they bear another mark: its worker writes another journal."""
        self._prefix = mark.encode()

    def mint(self) -> bytes:
        """`TOKEN_CHARS` hexadecimal digits; the count lasts 700 years at 12,000 a second."""
        return b"%b%012x" % (self._prefix, next(self._count))


class Admits:
    """Admissions under one policy, for one model, in one window: one call of `admission.lua`.

    A part is `(reservation, worst case, token)`: `reserved_as(...)`, `spelt(...)`, `Tokens.mint()`.
    Answers `(epoch, what admission.lua answers to one)`.
    """

    __slots__ = ("_arguments", "_called", "_keys", "_keys_before", "_named", "_read", "_rest")

    def __init__(self, limits: "LimitCommands", version: int, read_in: bytes) -> None:
        """`read_in`: the epoch in which the policy was read; empty where it was held before."""
        fixed = [*limits.fixed_keys, *limits.keys]
        self._called = _called(ADMIT)
        self._keys = len(fixed)
        self._keys_before = _bulks(fixed)
        self._named = limits.named
        read = [str(version), read_in.decode()]
        rest = [str(RESERVATION_TTL_S if limits.holds else 0), limits.record, *limits.rules]
        self._read = _bulks(read)
        self._rest = _bulks(rest)
        self._arguments = 3 + len(fixed) + len(read) + 1 + len(rest)

    def command(self, parts: Sequence[tuple[bytes, bytes, bytes]]) -> bytes:
        """The call for all of them; it opens an epoch of the first one's token, where none is."""
        keys = b"%d" % (self._keys + len(parts))
        named = self._named
        pieces = [
            b"*%d\r\n%b$%d\r\n%b\r\n%b"
            % (self._arguments + 2 * len(parts), self._called, len(keys), keys, self._keys_before)
        ]
        pieces += [b"%b%b\r\n" % (named, part[0]) for part in parts]
        token = parts[0][2]
        pieces.append(b"%b$%d\r\n%b\r\n%b" % (self._read, len(token), token, self._rest))
        pieces += [b"$%d\r\n%b\r\n" % (len(part[1]), part[1]) for part in parts]
        return b"".join(pieces)

    def answers(self, answer: Any) -> list[tuple[bytes, Any]]:
        """Of each: the epoch it was asked in, and its own answer."""
        epoch, *each = answer
        return [(epoch, one) for one in each]


class Settles:
    """Settlements of what `Admits` reserved: one call of `settle.lua`.

    A part is `(reservation, what was used)`. Answers what was given back to each pool, or -1.
    """

    __slots__ = ("_arguments", "_called", "_keys", "_keys_before", "_named", "_rules")

    def __init__(self, limits: "LimitCommands") -> None:
        self._called = _called(SETTLE)
        self._keys = len(limits.keys)
        self._keys_before = _bulks(limits.keys)
        self._named = limits.named
        self._rules = _bulks(limits.rules)
        self._arguments = 3 + len(limits.keys) + len(limits.rules)

    def command(self, parts: Sequence[tuple[bytes, bytes]]) -> bytes:
        """The call for all of them."""
        keys = b"%d" % (self._keys + len(parts))
        named = self._named
        pieces = [
            b"*%d\r\n%b$%d\r\n%b\r\n%b"
            % (self._arguments + 2 * len(parts), self._called, len(keys), keys, self._keys_before)
        ]
        pieces += [b"%b%b\r\n" % (named, part[0]) for part in parts]
        pieces.append(self._rules)
        pieces += [b"$%d\r\n%b\r\n" % (len(part[1]), part[1]) for part in parts]
        return b"".join(pieces)

    def answers(self, answer: Any) -> list[Any]:
        """Of each, what was given back."""
        return answer  # type: ignore[no-any-return]


class LimitCommands(msgspec.Struct, frozen=True, gc=False):
    """What calls say of limits: the keys that are there for any, theirs, and their rules.

    `named` is a reservation's key up to its end; `record` what follows its worst case; `holds`
    whether an admission leaves one.
    """

    fixed_keys: list[str]
    keys: list[str]
    rules: list[str]
    record: str
    named: bytes
    holds: bool


class PreparedCommands:
    """All that is constant of one policy's calls for one model while its windows last.

    Attributes:
        policy: what was prepared. Whoever holds this compares by identity.
        limits: what applies, in the order in which `admission.lua` is told of it.
        from_ms, until_ms: when it was prepared, and until when it holds.
        holds: whether an admission leaves a reservation.
        fixed_keys: those that are there for any limits.
        admits, settles: the calls.
        headers: what callers are told of the limits.
    """

    __slots__ = ("_said", "admits", "fixed_keys", "from_ms", "headers", "holds", "limits",
                 "policy", "settles", "until_ms")  # fmt: skip

    def __init__(self, policy: KeyPolicy, model: str, at_ms: int) -> None:
        tenant_id = policy.tenant_id
        self.policy = policy
        self.from_ms = at_ms
        self.limits, self.until_ms = applied_limits(policy, model, at_ms)
        self.headers = LimitHeaders(self.limits)
        self.holds = any(applied.gives_back for applied in self.limits)
        self.fixed_keys = [
            names.version(tenant_id, policy.key_id),
            names.epoch(tenant_id),
            names.hits(tenant_id),
        ]
        keys = [applied.key for applied in self.limits]
        # Pools, which take no arguments, come last.
        rules = ["".join(applied.rule for applied in self.limits)]
        rules += [argument for applied in self.limits for argument in applied.arguments]
        # A reservation's name is as long as any other's: everything but its end is constant.
        sample = f"{_NO_ID}:{'0' * TOKEN_CHARS}"
        reservation = names.reservation(tenant_id, _NO_ID).replace(str(_NO_ID), sample)
        self._said = LimitCommands(
            fixed_keys=self.fixed_keys,
            keys=keys,
            rules=rules,
            record=f"\n{' '.join(keys)}\n{' '.join(rules)}",
            named=_bulks([reservation]).removesuffix(f"{sample}\r\n".encode()),
            holds=self.holds,
        )
        self.admits = Admits(self._said, policy.version, b"")
        self.settles = Settles(self._said)

    def admits_read_in(self, epoch: bytes) -> Admits:
        """`admits`, where the policy was read in this epoch and not held before."""
        return Admits(self._said, self.policy.version, epoch)


def spelt(amounts: Worst) -> bytes:
    """A worst case, or what was used, as the scripts read it."""
    return b"%d %d %d" % (amounts.nano, amounts.tokens_in, amounts.tokens_out)


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


def _called(script: Script) -> bytes:
    """The head of an EVALSHA, up to the number of its keys."""
    return _bulks(["EVALSHA", script.sha])


def _bulks(texts: Sequence[str]) -> bytes:
    """RESP bulk strings."""
    return b"".join(b"$%d\r\n%b\r\n" % (len(each), each) for each in (t.encode() for t in texts))
