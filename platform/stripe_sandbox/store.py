"""State on disk: one SQLite file holding JSON documents, idempotent results and deliveries.

One thread owns the connection (`Ledger`), so acts run one after another and see each other's
effects whole. Every request is one transaction; an act that fails is rolled back to a savepoint
while its idempotent result is kept. Write-ahead log with synchronous=NORMAL: the state survives
`kill -9` of this process; a power cut may lose the last moments, never consistency. The lock is
exclusive: a second process on the same file fails at start instead of forking history.
"""

import asyncio
import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from stripe_sandbox import clock

Document: TypeAlias = dict[str, Any]
Where: TypeAlias = Sequence[tuple[str, Any]]
"""Conditions: an SQL fragment written in this package with one `?`, and its value."""

_Result = TypeVar("_Result")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS object (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    created INTEGER NOT NULL,
    customer TEXT,
    invoice TEXT,
    label TEXT,
    deleted INTEGER NOT NULL DEFAULT 0,
    act_at INTEGER,
    body TEXT NOT NULL CHECK (json_valid(body))
);
CREATE INDEX IF NOT EXISTS object_by_kind ON object (kind, seq);
CREATE INDEX IF NOT EXISTS object_by_customer ON object (customer, kind, seq);
CREATE INDEX IF NOT EXISTS object_by_invoice ON object (invoice, kind, seq);
CREATE INDEX IF NOT EXISTS object_by_timer ON object (act_at) WHERE act_at IS NOT NULL;
-- What search sees, later: every state an invoice was in, with the moment it was written.
CREATE TABLE IF NOT EXISTS searchable (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    first INTEGER NOT NULL,
    body TEXT NOT NULL,
    deleted INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS searchable_by_id ON searchable (id, seq);
CREATE TRIGGER IF NOT EXISTS object_made_searchable AFTER INSERT ON object
WHEN NEW.kind = 'invoice' BEGIN
    INSERT INTO searchable (id, first, body, deleted, seen_ms)
    VALUES (NEW.id, NEW.seq, NEW.body, NEW.deleted, sandbox_now_ms());
END;
CREATE TRIGGER IF NOT EXISTS object_changed_searchable AFTER UPDATE OF body, deleted ON object
WHEN NEW.kind = 'invoice' BEGIN
    INSERT INTO searchable (id, first, body, deleted, seen_ms)
    VALUES (NEW.id, NEW.seq, NEW.body, NEW.deleted, sandbox_now_ms());
END;
CREATE TABLE IF NOT EXISTS setting (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL CHECK (json_valid(value))
);
CREATE TABLE IF NOT EXISTS idempotent_result (
    key TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    request_id TEXT NOT NULL,
    status INTEGER NOT NULL,
    body TEXT NOT NULL,
    saved_at INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS delivery (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    event TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'abandoned')),
    attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    first_at_ms INTEGER NOT NULL,
    next_at_ms INTEGER NOT NULL,
    last_answer TEXT
);
CREATE INDEX IF NOT EXISTS delivery_due ON delivery (next_at_ms) WHERE state = 'pending';
CREATE INDEX IF NOT EXISTS delivery_by_event ON delivery (event);
"""


_NO_TEST_CLOCK = "json_extract(body, '$.test_clock') IS NULL"


class Store:
    """Documents by id and by list. Not thread safe: use it from the ledger's thread only."""

    def __init__(self, path: Path) -> None:
        # Signing secrets lie in this file: nobody else on the machine may read it.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self.connection = sqlite3.connect(path, isolation_level=None, timeout=1.0)
        try:
            self.connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self.connection.execute("PRAGMA journal_mode = WAL")
            self.connection.execute("PRAGMA synchronous = NORMAL")
            self.connection.create_function("sandbox_now_ms", 0, clock.now_ms)
            self.connection.executescript(_SCHEMA)
        except BaseException:
            self.connection.close()
            raise

    def close(self) -> None:
        """Checkpoint and release the file."""
        self.connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and durable when left."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    @contextlib.contextmanager
    def attempt(self) -> Iterator[None]:
        """Inside a transaction: effects are undone when the block raises."""
        self.connection.execute("SAVEPOINT attempt")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK TO attempt")
            self.connection.execute("RELEASE attempt")
            raise
        self.connection.execute("RELEASE attempt")

    def insert(self, document: Document, *, created: int, act_at: int | None = None) -> None:
        """Add a new document; `id` and `object` name it."""
        self.connection.execute(
            "INSERT INTO object (id, kind, created, customer, invoice, label, act_at, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                document["id"],
                document["object"],
                created,
                document.get("customer"),
                document.get("invoice"),
                _label(document),
                act_at,
                json.dumps(document),
            ),
        )

    def put(self, document: Document) -> None:
        """Write the document back; its timer stays as it is."""
        changed = self.connection.execute(
            "UPDATE object SET customer = ?, invoice = ?, label = ?, body = ? WHERE id = ?",
            (
                document.get("customer"),
                document.get("invoice"),
                _label(document),
                json.dumps(document),
                document["id"],
            ),
        ).rowcount
        if changed != 1:
            raise RuntimeError(f"{document['id']} is not stored")

    def find(self, kind: str, object_id: str, *, deleted: bool = False) -> Document | None:
        """The document, or None; a deleted one only when asked for."""
        row = self.connection.execute(
            "SELECT body FROM object WHERE id = ? AND kind = ? AND (NOT deleted OR ?)",
            (object_id, kind, deleted),
        ).fetchone()
        return None if row is None else json.loads(row[0])

    def remove(self, object_id: str) -> None:
        """Hide a document for good; the row stays as evidence that the id was used."""
        self.connection.execute(
            "UPDATE object SET deleted = 1, act_at = NULL WHERE id = ?", (object_id,)
        )

    def set_timer(self, object_id: str, act_at: int | None) -> None:
        """When the background should look at this object again."""
        self.connection.execute("UPDATE object SET act_at = ? WHERE id = ?", (act_at, object_id))

    def due(self, now: int, limit: int) -> list[Document]:
        """Objects whose timer has come, earliest first."""
        rows = self.connection.execute(
            f"SELECT body FROM object WHERE act_at <= ? AND {_NO_TEST_CLOCK}"  # noqa: S608 (literal)
            " ORDER BY act_at LIMIT ?",
            (now, limit),
        )
        return [json.loads(row[0]) for row in rows]

    def next_timer(self) -> int | None:
        """When the earliest timer comes; those of test clocks come by hand."""
        row = self.connection.execute(
            f"SELECT min(act_at) FROM object WHERE act_at IS NOT NULL AND {_NO_TEST_CLOCK}"  # noqa: S608 (literal)
        ).fetchone()
        return None if row[0] is None else int(row[0])

    def seq_of(self, kind: str, object_id: str) -> int | None:
        """A document's place in the order of creation."""
        row = self.connection.execute(
            "SELECT seq FROM object WHERE id = ? AND kind = ? AND NOT deleted", (object_id, kind)
        ).fetchone()
        return None if row is None else int(row[0])

    def select(
        self, kind: str, where: Where = (), *, ascending: bool = False, limit: int
    ) -> list[Document]:
        """Up to `limit` documents in order of creation, newest first unless `ascending`."""
        conditions = "".join(f" AND {fragment}" for fragment, _ in where)
        direction = "ASC" if ascending else "DESC"
        rows = self.connection.execute(
            # Fragments and direction are literals of this package; values are bound.
            f"SELECT body FROM object WHERE kind = ? AND NOT deleted{conditions}"  # noqa: S608
            f" ORDER BY seq {direction} LIMIT ?",
            (kind, *(value for _, value in where), limit),
        )
        return [json.loads(row[0]) for row in rows]


def _label(document: Document) -> str | None:
    """What lists filter by beside the owner: an event's type, else a status, else a type."""
    if document["object"] in ("event", "payment_method"):
        return str(document["type"])
    return document.get("status")


class Ledger:
    """The one thread that owns the store; coroutines hand it functions."""

    def __init__(self, path: Path) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        self._store = self._thread.submit(Store, path).result()

    async def run(self, act: Callable[[Store], _Result]) -> _Result:
        """Run `act` on the store's thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, act, self._store)

    def close(self) -> None:
        """After the last act."""
        self._thread.submit(self._store.close).result()
        self._thread.shutdown()
