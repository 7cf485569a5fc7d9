"""Requests under way end when their key may not infer any more.

Admission refuses who comes after a change; here those are cut who were let in before it.
Guarantees: within 2 s of the change (a key revoked or expired, its organisation suspended) every
request of the key in this worker is cut, also one that waits for its turn or for the rest of an
answer; it is told why in its surface's words, and settled for what was made until then. A request
costs an entry in a set, a key with requests under way a part of one call every `LOOK_EVERY_S`.

Redis knows the current version of each key. Where it has another one than is known here, has none
(it was lost) or does not answer, PostgreSQL is asked what the key may do: of keys that Redis says
nothing about at most once in `POSTGRES_EVERY_S`. While neither answers nothing is known, and
nothing cut: nothing is admitted then either, and what runs is bounded in time and reserved.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, Protocol, TypeVar
from uuid import UUID

from meterplane.contracts import admission_keys
from meterplane.contracts.policy import KeyPolicy
from meterplane.gateway import errors
from meterplane.gateway.authenticate import is_usable
from meterplane.gateway.limit_refusals import budget_rebuilding
from meterplane.gateway.lua_calls import LuaCalls
from meterplane.gateway.policies import Policies, Standing
from meterplane.gateway.redis_connection import pack
from meterplane.gateway.run import Run
from meterplane.kernel.errors import CallerError, WorldError

log = logging.getLogger("meterplane.gateway")
Each = TypeVar("Each")

LOOK_EVERY_S = 0.5  # and at worst POSTGRES_EVERY_S and a call that Redis does not answer: below 2 s
ANSWER_S = 0.5  # for Redis, all calls of a look together: what it is not asked in time is not known
POSTGRES_EVERY_S = 0.95  # every second look; just below, so that a look that is early is none less
KEYS_PER_CALL = 256  # x ~90 bytes = 23 kB
CALLS_AT_ONCE = 32  # an eighth of a trip: admissions never wait long behind them
DIGESTS_PER_READ = 1024  # x 32 bytes


class Cuttable(Protocol):
    """A request, or a stream of them, as far as its end is concerned."""

    run: Run | None
    refusal: CallerError | None

    def end_early(self, why: Literal["refused"]) -> bool:
        """Cancel whoever answers; False when that was done already, or nobody answers any more."""
        ...


class _Key:
    """A key with requests under way, and the newest that is known of it."""

    __slots__ = ("key_id", "running", "standing", "tenant_id")

    def __init__(self, policy: KeyPolicy) -> None:
        self.tenant_id = policy.tenant_id
        self.key_id = policy.key_id
        self.standing: KeyPolicy | Standing = policy
        self.running: set[Cuttable] = set()


class OpenRuns:
    """Requests under way in one worker, by the whole digest of their key."""

    def __init__(self, calls: LuaCalls, policies: Policies) -> None:
        self._calls = calls
        self._policies = policies
        self._keys: dict[bytes, _Key] = {}
        self._read_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self.cut = 0

    def note(self, digest: bytes, policy: KeyPolicy, running: Cuttable) -> None:
        """A request was admitted under `policy`. `forget` it, however it ends."""
        key = self._keys.get(digest)
        if key is None:
            key = self._keys[digest] = _Key(policy)
        elif policy.version > key.standing.version:
            key.standing = policy
        key.running.add(running)

    def forget(self, digest: bytes, running: Cuttable) -> None:
        """It has ended; nothing if it was never noted."""
        key = self._keys.get(digest)
        if key is not None:
            key.running.discard(running)
            if not key.running:
                del self._keys[digest]

    def start(self) -> None:
        """Begin to look. Needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await self.look()
            except Exception:  # whatever it was: the next look is another one
                log.exception("open requests could not be compared with their keys")
            await asyncio.sleep(max(0.0, began + LOOK_EVERY_S - time.monotonic()))

    async def look(self) -> None:
        """Compare every key that has requests under way with what it may do now."""
        if not self._keys:
            return
        changed, silent = await self._ask_redis()
        now = time.monotonic()
        if silent and now - self._read_at >= POSTGRES_EVERY_S:
            self._read_at = now
            changed += silent
        # One that is past its expiry by what is known here may have been given more time.
        expired = [digest for digest, key in self._keys.items() if not is_usable(key.standing)]
        await self._read({*changed, *expired})
        for key in list(self._keys.values()):
            failure = refusal(key.standing)
            if failure is not None:
                self.cut += sum(cut_off(running, failure) for running in list(key.running))

    async def confirm(self, digest: bytes, reservation: str = "") -> None:
        """Who was noted, and then waited to begin, may begin: its key may infer still.

        And what it reserved is there still, where it has a `reservation`: a Redis that was lost
        meanwhile has taken it along, and what it was granted may have been returned. Raises
        `CallerError` as for a request that is cut; `WorldError` 503 while nobody can say.
        """
        key = self._keys[digest]
        names = [admission_keys.version(key.tenant_id, key.key_id)]
        if reservation:
            names.append(admission_keys.reservation(key.tenant_id, reservation))
        version = key.standing.version
        (answered,) = await self._answers([pack("MGET", *names)], ANSWER_S)
        if not answered or answered[0] is None or int(answered[0]) != version:
            self._learn([digest], await self._policies.standings([digest]))
        failure = refusal(key.standing)
        if failure is not None:
            raise failure
        if reservation and (not answered or answered[1] is None):
            raise budget_rebuilding()

    async def _ask_redis(self) -> tuple[list[bytes], list[bytes]]:
        """The keys that Redis knows another version of, and those it says nothing about."""
        changed: list[bytes] = []
        silent: list[bytes] = []
        until = time.monotonic() + ANSWER_S
        for some in _slices(list(self._calls_for()), CALLS_AT_ONCE):
            left_s = until - time.monotonic()
            answers = await self._answers([command for _, command in some], left_s)
            for (asked, _), versions in zip(some, answers, strict=True):
                known = versions or [None] * len(asked)
                for (digest, version), current in zip(asked, known, strict=True):
                    if current is None:
                        silent.append(digest)
                    elif int(current) != version:
                        changed.append(digest)
        return changed, silent

    async def _answers(self, commands: list[bytes], within_s: float) -> list[list[Any]]:
        """What Redis answers to each in time; nothing where it does not."""
        if within_s <= 0:
            return [[] for _ in commands]
        asked = [self._calls.ask(command) for command in commands]
        try:
            await asyncio.wait(asked, timeout=within_s)
            return [
                each.result() if each.done() and each.exception() is None else [] for each in asked
            ]
        finally:
            for each in asked:
                each.cancel()

    def _calls_for(self) -> Iterator[tuple[list[tuple[bytes, int]], bytes]]:
        """One call for the keys of each organisation: they live on one node of a cluster."""
        of_tenant: dict[UUID, list[tuple[bytes, int, str]]] = {}
        for digest, key in self._keys.items():
            name = admission_keys.version(key.tenant_id, key.key_id)
            asked = of_tenant.setdefault(key.tenant_id, [])
            asked.append((digest, key.standing.version, name))
        for every in of_tenant.values():
            for some in _slices(every, KEYS_PER_CALL):
                names = [name for _, _, name in some]
                yield [(digest, version) for digest, version, _ in some], pack("MGET", *names)

    async def _read(self, digests: Iterable[bytes]) -> None:
        """What PostgreSQL knows of these keys now; nothing is changed if it does not answer."""
        for some in _slices(list(digests), DIGESTS_PER_READ):
            try:
                found = await self._policies.standings(some)
            except WorldError as failure:
                log.warning("open requests could not be compared: %s", failure.code)
                return
            self._learn(some, found)

    def _learn(self, digests: Iterable[bytes], found: dict[bytes, Standing]) -> None:
        for digest in digests:
            key = self._keys.get(digest)
            standing = found.get(digest, _GONE)
            # One that was read before a newer policy was admitted under is behind it.
            if key is not None and (standing is _GONE or standing.version >= key.standing.version):
                key.standing = standing


_GONE = Standing(version=0, status="revoked", status_reason="", expires_at_ms=None)


def cut_off(running: Cuttable, failure: CallerError) -> bool:
    """End a request with what its caller is told; False for one that has settled, or is ending."""
    settled = running.run is not None and running.run.settled is not None
    if settled or not running.end_early("refused"):
        return False
    running.refusal = failure
    return True


def refusal(standing: KeyPolicy | Standing) -> CallerError | None:
    """What whoever runs under a key that may not infer is told; None while it may."""
    if standing.status == "suspended":
        return errors.account_suspended(standing.status_reason)
    if standing.status == "revoked":
        return errors.key_revoked()
    return None if is_usable(standing) else errors.key_expired()


def _slices(all_of_them: Sequence[Each], size: int) -> Iterator[Sequence[Each]]:
    return (all_of_them[at : at + size] for at in range(0, len(all_of_them), size))
