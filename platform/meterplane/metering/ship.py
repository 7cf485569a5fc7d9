"""The shipper: sealed segments of this host's journals to any worker, until PostgreSQL has them.

Guarantees: a segment's file is deleted only when `journal_segment` records it and the SETTLE of
every ADMIT in it, and every older segment of its journal is gone. Sending again is harmless, so
nothing is remembered across restarts: what is on disk is what there is to do. A broker or
database that is away is waited for; the backlog stays on disk. A journal whose files cannot be read
or recovered is reported and tried again; the others go on.

One shipper runs per host. Of a gateway that died it takes over the journal: it holds its lock,
recovers it (`journal.recovery`), has its reservations given back (`release`) and ships it like any
other. So does it with a directory that a living gateway let go, because its disk had failed. A
segment that is damaged is sent as it is, and said aloud; one that cannot be read at all is noted in
`usage_quarantine`, for a person to see.
"""

import hashlib
import logging
import os
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice, takewhile
from pathlib import Path
from uuid import UUID

import msgspec
from django.conf import settings
from django.db import close_old_connections, connection
from django.db.utils import InterfaceError, OperationalError
from kombu.exceptions import OperationalError as BrokerError

from meterplane.contracts.usage import SegmentMessage
from meterplane.journal import reader
from meterplane.journal.directory import LOCK_NAME, claim, list_directories, worker_of
from meterplane.journal.recovery import recover
from meterplane.journal.segment import SegmentPath, list_segments
from meterplane.kernel.failpoints import failpoint
from meterplane.kernel.limits import SEGMENT_BYTES_MAX
from meterplane.metering.manifest import ends_in, manifest_of
from meterplane.metering.release import Releases
from meterplane.metering.tasks import ingest_segments
from meterplane.metering.watermark import Watermark
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

POLL_S = 0.1
RESEND_AFTER_S = 15.0  # a worker takes a segment in within milliseconds; this one was lost
# Each resend waits twice as long as the one before, up to this: while no worker runs at all, the
# broker is given the same 32 segments 4 times an hour and not 240 times.
RESEND_AFTER_S_MAX = 900.0
ALARM_AFTER_SENDS = 4  # 15 + 30 + 60 s without a record: a person should know
IN_FLIGHT_MAX = 32  # of one journal: 32 MB at most in the broker, as far again is read ahead
LISTED_MAX = 10_000  # at 500 a second a directory of any size is read every 20 s
# To one worker at once, in one transaction: a quarter of those under way, so that several workers
# have some; of small ones, as a slow night leaves them by the hundred thousand, all.
TOGETHER_MAX = IN_FLIGHT_MAX
TOGETHER_BYTES_MAX = 8 * SEGMENT_BYTES_MAX
AWAY_PAUSE_S = 1.0

_UNREADABLE = """
INSERT INTO usage_quarantine (segment_id, reason, payload)
SELECT %s, %s, ''
 WHERE NOT EXISTS (SELECT FROM usage_quarantine WHERE segment_id = %s AND payload = '')
"""

Send = Callable[[list[SegmentMessage]], object]


@dataclass(slots=True)
class _Shipped:
    """One sealed segment: what it opened, when it was last sent, whether it is recorded."""

    path: SegmentPath
    sha256: str
    admits: set[UUID]
    settles: set[UUID]
    manifest: bytes
    size: int
    sends: int = 0
    sent_at: float = 0.0
    recorded: bool = False

    @property
    def wait_s(self) -> float:
        """Until it is sent again."""
        return min(RESEND_AFTER_S * 2.0 ** (self.sends - 1), RESEND_AFTER_S_MAX)


@dataclass(slots=True)
class _Journal:
    """One directory under watch. `lock` is held when its gateway is gone."""

    directory: Path
    lock: int | None = None
    listed: deque[SegmentPath] = field(default_factory=deque)  # sealed, and not read yet
    segments: dict[UUID, _Shipped] = field(default_factory=dict)
    opened: set[UUID] = field(default_factory=set)  # by the ADMITs in these
    settled: set[UUID] = field(default_factory=set)  # and taken in
    rest_until: float = 0.0  # after trouble with its files


def send_to_worker(messages: list[SegmentMessage]) -> None:
    """Hand segments to whichever Celery worker is free. Raises kombu's OperationalError."""
    with ingest_segments.app.connection_for_write() as link:
        away = (*link.connection_errors, *link.channel_errors)
    try:
        ingest_segments.apply_async(args=(msgspec.to_builtins(messages),), retry=False)
    except away as error:
        # Sockets raise OSError, which would look like trouble with a journal's files.
        raise BrokerError(f"broker: {error}") from error


class Shipper:
    """Ships the journals under `root`. Call `step` again and again."""

    def __init__(self, root: Path, send: Send = send_to_worker) -> None:
        self._root = root
        self._send = send
        self._journals: dict[str, _Journal] = {}
        self._watermark = Watermark(root)
        self._releases = Releases(settings.ADMISSION_REDIS_URL)

    def run(self, stopping: Callable[[], bool]) -> None:
        """Ship until `stopping()`; wait out whatever is away."""
        while not stopping():
            try:
                busy = self.step()
            except (OperationalError, InterfaceError, BrokerError) as away:
                log.warning("waiting: %s", str(away).strip().splitlines()[:1])
                connection.close()
                time.sleep(AWAY_PAUSE_S)
                continue
            close_old_connections()
            if not busy:
                time.sleep(POLL_S)
        self._watermark.retire()

    def step(self) -> bool:
        """Look once at every journal; True if something was sent or deleted.

        Raises Django's or kombu's OperationalError when a server is away.
        """
        busy = False
        directories = list_directories(self._root)
        for name in self._journals.keys() - {path.name for path in directories}:
            del self._journals[name]
        for directory in directories:
            journal = self._journals.setdefault(directory.name, _Journal(directory))
            if time.monotonic() < journal.rest_until:
                continue
            try:
                busy = self._ship(journal) or busy
            except OSError as trouble:
                log.error("%s: %s", directory, trouble)
                journal.listed.clear()  # as it may not be there any more
                journal.rest_until = time.monotonic() + AWAY_PAUSE_S
        self._releases.pay()
        self._watermark.advance()
        return busy

    @property
    def backlog(self) -> int:
        """Sealed segments that are still on disk."""
        return sum(len(journal.segments) for journal in self._journals.values())

    def _ship(self, journal: _Journal) -> bool:
        if journal.lock is None:
            self._take_over(journal)
        self._look(journal)
        busy = self._send_some(journal)
        self._mark_recorded(journal)
        busy = self._delete_prefix(journal) or busy
        if journal.lock is not None and not (journal.segments or journal.listed):
            self._remove_if_empty(journal)
        return busy

    def _take_over(self, journal: _Journal) -> None:
        """If the gateway is gone, hold its lock, finish its journal and give back what it held."""
        lock = claim(journal.directory)
        if lock is None:
            return
        try:
            recover(journal.directory)
            self._releases.owe(journal.directory)
        except BaseException:
            os.close(lock)  # not ours until it is whole: an orphan's SETTLE would be missing
            raise
        journal.lock = lock

    def _look(self, journal: _Journal) -> None:
        """Read segments that were sealed since, in order, not further ahead than can be sent."""
        ahead = sum(not shipped.recorded for shipped in journal.segments.values())
        if not journal.listed:
            # What is found is read before the directory is again: after a week without PostgreSQL
            # it holds a million files. A later one cannot be sealed before an earlier one.
            listed = list_segments(journal.directory, at_most=LISTED_MAX)
            found = takewhile(lambda path: path.sealed, listed)
            journal.listed.extend(path for path in found if path.segment_id not in journal.segments)
        while journal.listed and ahead < 2 * IN_FLIGHT_MAX:
            path = journal.listed[0]
            data = _read(path)
            content = reader.parse_segment(data)
            for stretch in content.damaged:
                log.error("%s: %s; the rest of it is taken in", path.path, stretch)
            admits, settles = ends_in(content.payloads)
            # A request may be admitted again, under its id: the first one, which goes first, waits.
            admits -= journal.opened
            journal.opened |= admits
            digest = hashlib.sha256(data).hexdigest()
            journal.segments[path.segment_id] = _Shipped(
                path,
                digest,
                admits,
                {settle.request_id for settle in settles},
                manifest_of(settles),
                len(data),
            )
            journal.listed.popleft()
            failpoint("ship.segment.after_read")
            ahead += 1

    def _send_some(self, journal: _Journal) -> bool:
        due = self._due(journal)
        # One that was lost may be why its worker is: what is sent again goes by itself.
        again = [shipped for shipped in due if shipped.sends]
        first = deque(shipped for shipped in due if not shipped.sends)
        for shipped in again:
            self._send_together(journal, [shipped])
        while first:
            together: list[_Shipped] = []
            size = 0
            while first and len(together) < TOGETHER_MAX and size < TOGETHER_BYTES_MAX:
                size += first[0].size
                together.append(first.popleft())
            self._send_together(journal, together)
        return bool(due)

    def _due(self, journal: _Journal) -> list[_Shipped]:
        """Of the segments that may be under way, those that are not, or for too long."""
        now = time.monotonic()
        unrecorded = (each for each in journal.segments.values() if not each.recorded)
        return [
            each
            for each in islice(unrecorded, IN_FLIGHT_MAX)
            if each.sends == 0 or now - each.sent_at >= each.wait_s
        ]

    def _send_together(self, journal: _Journal, together: list[_Shipped]) -> None:
        failpoint("ship.segment.before_send")
        self._send([_message(each, worker_of(journal.directory)) for each in together])
        failpoint("ship.segment.after_send")
        for shipped in together:
            shipped.sent_at = time.monotonic()
            shipped.sends += 1
            if shipped.sends >= ALARM_AFTER_SENDS:
                log.error(
                    "%s was sent %s times and is not recorded", shipped.path.path, shipped.sends
                )

    def _mark_recorded(self, journal: _Journal) -> None:
        waiting = [
            segment_id
            for segment_id, shipped in journal.segments.items()
            if shipped.sends and not shipped.recorded
        ]
        if not waiting:
            return
        with system_scope("the shipper asks what was taken in"), connection.cursor() as cursor:
            cursor.execute(
                "SELECT segment_id, sha256 FROM journal_segment WHERE segment_id = ANY(%s)",
                [waiting],
            )
            for segment_id, sha256 in cursor.fetchall():
                shipped = journal.segments[segment_id]
                # '': recorded before digests were kept. Another digest: not this file, keep it.
                shipped.recorded = sha256 in (shipped.sha256, "")
                if shipped.recorded:
                    journal.settled |= shipped.settles

    def _delete_prefix(self, journal: _Journal) -> bool:
        deleted = False
        for segment_id, shipped in list(journal.segments.items()):
            if not shipped.recorded or not shipped.admits <= journal.settled:
                break
            failpoint("ship.segment.before_delete")
            shipped.path.path.unlink(missing_ok=True)
            failpoint("ship.segment.after_delete")
            del journal.segments[segment_id]
            journal.opened -= shipped.admits
            journal.settled -= shipped.admits
            deleted = True
        return deleted

    def _remove_if_empty(self, journal: _Journal) -> None:
        """Once nothing is left of a dead gateway's journal but its lock."""
        if list_segments(journal.directory, at_most=1):
            return
        (journal.directory / LOCK_NAME).unlink(missing_ok=True)
        try:
            journal.directory.rmdir()
        except OSError as kept:
            log.error("%s holds files that are not ours: %s", journal.directory, kept)
            return
        if journal.lock is not None:
            os.close(journal.lock)
        del self._journals[journal.directory.name]


def _read(path: SegmentPath) -> bytes:
    """Raises OSError, noted once where a person looks: its journal waits for that disk."""
    try:
        return path.path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as trouble:
        reason = f"{path.path} cannot be read: {trouble.strerror}"
        with system_scope("a segment that cannot be read"), connection.cursor() as cursor:
            cursor.execute(_UNREADABLE, [path.segment_id, reason, path.segment_id])
        raise OSError(trouble.errno, reason) from trouble


def _message(shipped: _Shipped, gateway: str) -> SegmentMessage:
    data = shipped.path.path.read_bytes()
    return SegmentMessage(
        segment_id=shipped.path.segment_id,
        gateway=gateway,
        sha256=shipped.sha256,
        body=zlib.compress(data, 1),
        manifest=shipped.manifest,
    )
