"""Up to when everything admitted beside this journal root is settled and taken in.

The problem: what a lost Redis had been granted may return to its budgets only when no request that
was admitted there can still turn up with a cost. Choice: once a second, ask PostgreSQL for the time
and then note which segments hold frames. When all of those are gone from the disk, everything
that was written here before that instant is in `usage_event`: the shipper deletes a segment only
once it and every SETTLE of its ADMITs are recorded. No clock of this host is asked: none is wrong.

Guarantees: `drained_until` never claims too much and never goes back, across restarts too. A root
is known from the shipper's first second, and forgotten when the shipper stops beside an empty one.

Limits: what was admitted and is not yet in a journal is not covered; who relies on this allows for
it (`policy.stranded`). A root whose disk is gone for good is waited for until somebody says so
(`manage.py forget_journal_root`). Its name is in its file `.root`, which must not be copied.
"""

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

from django.db import connection
from django.db.utils import InterfaceError, OperationalError

from meterplane.journal.directory import list_directories
from meterplane.journal.segment import outermost
from meterplane.kernel.ids import uuid7
from tenants.scoping import system_scope

log = logging.getLogger(__name__)

EVERY_S = 1.0
# A million files take seconds to list: whoever ships them has nine tenths of the time.
PAUSE_SHARE = 10
SILENT_S = 60
NAME = ".root"
# While one stream runs nothing drains: the notes of its first minute are enough to go on from.
NOTES_MAX = 64

_ADVANCE = """
INSERT INTO journal_watermark AS w (root, host, drained_until, seen_at)
VALUES (%s, %s, COALESCE(%s, 'epoch'::timestamptz), clock_timestamp())
ON CONFLICT (root) DO UPDATE
   SET host = excluded.host, seen_at = excluded.seen_at,
       drained_until = GREATEST(w.drained_until, excluded.drained_until)
RETURNING clock_timestamp()
"""


@dataclass(frozen=True, slots=True)
class _Note:
    """The last segment with frames of each journal, looked for after `at`, the database's time."""

    at: datetime
    last: Mapping[str, UUID]


class Watermark:
    """The watermark of one root. Belongs to its shipper."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._id: UUID | None = None
        self._notes: deque[_Note] = deque()
        self._next_at = 0.0

    def advance(self) -> None:
        """Store how far this root is, at most every `EVERY_S` and for a tenth of the time.

        Trouble with its files is logged. Raises Django's OperationalError when PostgreSQL is away.
        """
        if time.monotonic() < self._next_at:
            return
        began = time.monotonic()
        try:
            identity = self._id = self._id or _identity(self._root)
            first = {name: ends[0] for name, ends in _outermost(self._root).items()}
            drained_until = self._drained(first)
            with system_scope("a shipper's watermark"), connection.cursor() as cursor:
                cursor.execute(_ADVANCE, [identity, socket.gethostname(), drained_until])
                (at,) = cursor.fetchone()
            if len(self._notes) < NOTES_MAX:
                last = {name: ends[1] for name, ends in _outermost(self._root).items()}
                self._notes.append(_Note(at, last))
        except OSError as trouble:
            log.error("no watermark of %s: %s", self._root, trouble)
        self._next_at = began + max(EVERY_S, PAUSE_SHARE * (time.monotonic() - began))

    def retire(self) -> None:
        """Forget a root with no journal left: its gateways are gone, all they did is taken in."""
        if self._id is None or list_directories(self._root):
            return
        try:
            forget(self._id)
        except (OperationalError, InterfaceError) as away:
            log.warning("%s is still known as a journal root: %s", self._root, away)

    def _drained(self, first: Mapping[str, UUID]) -> datetime | None:
        """The latest noted instant of which nothing is left, given each journal's oldest segment.

        A later note names the same segments or later ones: one that is not drained ends the search.
        """
        drained_until = None
        while self._notes:
            note = self._notes[0]
            # Files go in order: who begins behind the noted one holds nothing up to it.
            if any(name in first and first[name] <= last for name, last in note.last.items()):
                break
            drained_until = self._notes.popleft().at
        return drained_until


def _outermost(root: Path) -> Mapping[str, tuple[UUID, UUID]]:
    """The first and the last segment with frames of each journal. Raises OSError."""
    # Looked at twice: a directory of many files is read in parts, and one that is sealed, and so
    # renamed, between two parts may be in neither. That happens to a segment once.
    found: dict[str, tuple[UUID, UUID]] = {}
    for directory in [*list_directories(root), *list_directories(root)]:
        ends = outermost(directory)
        if ends is not None:
            first, last = found.get(directory.name, ends)
            found[directory.name] = min(first, ends[0]), max(last, ends[1])
    return found


def _identity(root: Path) -> UUID:
    """What the root is called, from its own file. Raises OSError."""
    path = root / NAME
    try:
        return UUID(path.read_text().strip())
    except FileNotFoundError:
        pass
    except ValueError:
        log.error("%s does not name its root: it gets another name", path)
    identity = uuid7()
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.with_suffix(".new").open("w") as file:
        file.write(f"{identity}\n")
        file.flush()
        os.fsync(file.fileno())
    path.with_suffix(".new").replace(path)
    return identity


def drained_everywhere() -> datetime | None:
    """Up to when everything admitted anywhere is settled and taken in; None where no root is known.

    The database's time. A root that was not heard of for `SILENT_S` is logged: it holds up whoever
    waits for this.
    """
    with system_scope("how far all journals are"), connection.cursor() as cursor:
        cursor.execute(
            "SELECT root, host, clock_timestamp() - seen_at, drained_until"
            "  FROM journal_watermark ORDER BY drained_until"
        )
        roots = cursor.fetchall()
    for root, host, silence, _ in roots:
        if silence > timedelta(seconds=SILENT_S):
            log.error(
                "no shipper of journal root %s on %s for %s: start it, or if the disk is gone:"
                " manage.py forget_journal_root %s", root, host, silence, root,
            )  # fmt: skip
    return roots[0][3] if roots else None


def forget(root: UUID) -> bool:
    """Wait no longer for a root whose disk is gone for good. False if none has that name.

    What was admitted there and never taken in then counts as never spent.
    """
    with system_scope("a journal root is gone"), connection.cursor() as cursor:
        cursor.execute("DELETE FROM journal_watermark WHERE root = %s", [root])
        return bool(cursor.rowcount)
