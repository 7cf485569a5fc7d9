"""What a gateway that died still held in the admission Redis goes back, as its journal says.

The problem: a killed gateway leaves its reservations. A timer would either give back what a running
request goes on to spend, or withhold it for as long as the longest request. Choice: the journal is
the evidence. Once it is recovered every ADMIT in it has its SETTLE, and names its reservation: that
is settled in Redis with the recorded cost, as the gateway would have done. So are requests that
were settled in time: the gateway may have been killed between its journal and Redis. And what it
reserved without writing it down was never forwarded: it carries the journal's mark, is looked for
a moment later, when what stood in the dead gateway's sockets was read, and goes back whole.

Guarantees: a reservation is given back once, whoever does it and however often: `settle.lua` finds
it once. Redis that is away is asked again, and nothing else waits for it.

Limits: looking for a mark reads the names of all keys, once for each gateway that died. What is
owed is kept in memory. A shipper that is killed finds it again in the segments that
are still on disk; of those that are gone it stays held until it expires, which withholds budget and
never adds any. A Redis that was lost holds nothing.
"""

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import redis

from meterplane.contracts import admission_keys
from meterplane.contracts.reservations import SETTLE, mark_of, settle_call
from meterplane.contracts.usage import Admit, Settle
from meterplane.journal import reader
from meterplane.journal.segment import list_segments

log = logging.getLogger(__name__)

OWED_MAX = 131_072  # x ~0.3 kB = 40 MB; a worker's last minute at 2,000 requests a second
BATCH_MAX = 1000  # of one step: 1,000 x ~1 kB each way
AWAY_PAUSE_S = 1.0
UNWRITTEN_AFTER_S = 2.0
TIMEOUT_S = 0.5


@dataclass(frozen=True, slots=True)
class _Owed:
    """One reservation and what its request used in the end."""

    key: str
    cost_nano: int = 0
    tokens_in: int = 0
    tokens_out: int = 0


class Releases:
    """What one shipper owes to the admission Redis."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(
            url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
        )
        self._script = self._client.register_script(SETTLE)
        self._owed: deque[_Owed] = deque(maxlen=OWED_MAX)
        self._unwritten: deque[tuple[float, str]] = deque()  # when to look for which mark
        self._rest_until = 0.0

    @property
    def owed(self) -> int:
        """How many reservations, and marks, were not asked for yet."""
        return len(self._owed) + len(self._unwritten)

    def owe(self, directory: Path) -> None:
        """Everything that was reserved for the requests of a recovered journal. Raises OSError.

        A request that was reserved for more than once, under one id, cost what it did under the
        last: nothing under those before. One that moved to a fallback has one reservation.
        """
        owed: list[_Owed] = []
        last: dict[UUID, Admit] = {}
        for segment in list_segments(directory):
            for frame in reader.frames_of(reader.read_segment(segment.path)):
                if isinstance(frame, Admit):
                    moved = last.get(frame.request_id)
                    if moved is not None and moved.reservation != frame.reservation:
                        owed.append(_Owed(_key(moved)))
                    if frame.reservation:
                        last[frame.request_id] = frame
                elif isinstance(frame, Settle) and frame.request_id in last:
                    admit = last.pop(frame.request_id)
                    owed.append(
                        _Owed(_key(admit), frame.cost_nano, frame.tokens_in, frame.tokens_out)
                    )
        self._owed.extend(owed)
        self._unwritten.append((time.monotonic() + UNWRITTEN_AFTER_S, mark_of(directory)))

    def pay(self) -> None:
        """Give back some of what is owed, unless Redis was away a moment ago. Never raises."""
        now = time.monotonic()
        if now < self._rest_until:
            return
        if not self._owed and self._unwritten and self._unwritten[0][0] <= now:
            self._find_unwritten(self._unwritten[0][1])
        if not self._owed:
            return
        some = [self._owed[number] for number in range(min(BATCH_MAX, len(self._owed)))]
        try:
            back, refused = self._settle(some)
        except redis.RedisError as away:
            log.warning("%s reservations wait for the admission Redis: %s", len(self._owed), away)
            self._rest_until = time.monotonic() + AWAY_PAUSE_S
            return
        for _ in some:
            self._owed.popleft()
        if refused:
            self._owed.extend(refused)
            self._rest_until = time.monotonic() + AWAY_PAUSE_S
        if back:
            log.info("%s reservations of a gateway that is gone were given back", back)

    def _find_unwritten(self, mark: str) -> None:
        """Owe what a worker still holds after all that its journal knows was given back."""
        try:
            keys = self._client.scan_iter(admission_keys.reservations_by(mark), count=BATCH_MAX)
            found = [_Owed(key.decode()) for key in keys]
        except redis.RedisError as away:
            log.warning("what a gateway held waits for the admission Redis: %s", away)
            self._rest_until = time.monotonic() + AWAY_PAUSE_S
            return
        self._owed.extend(found)
        self._unwritten.popleft()

    def _settle(self, some: Sequence[_Owed]) -> tuple[int, list[_Owed]]:
        """How many were found and given back, and what Redis refused to take back now."""
        pipeline = self._client.pipeline(transaction=False)
        for owed in some:
            pipeline.get(owed.key)
        found = []
        for owed, record in zip(some, pipeline.execute(), strict=True):
            if record is None:
                continue  # its gateway gave it back, or that Redis is gone
            try:
                call = settle_call(
                    owed.key, record, owed.cost_nano, owed.tokens_in, owed.tokens_out
                )
            except ValueError as problem:
                log.error("%s is no reservation: %s", owed.key, problem)
                continue
            self._script(*call, client=pipeline)
            found.append(owed)
        answers = pipeline.execute(raise_on_error=False)
        refused = [
            owed
            for owed, answer in zip(found, answers, strict=True)
            if isinstance(answer, Exception)
        ]
        if refused:
            log.error("%s reservations could not be given back: %s", len(refused), answers)
        return len(found) - len(refused), refused


def _key(admit: Admit) -> str:
    return admission_keys.reservation(admit.tenant_id, admit.reservation)
