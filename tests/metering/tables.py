"""All tables that usage is in, as one digest: what two ways of taking it in must agree on."""

import hashlib

import psycopg
from psycopg import sql

from tests import environment

# Which copy of an event was the first, and when it came, is chance; so is how many transactions
# added usage, which `usage_revision` tells.
TABLES = {
    "usage_event": "segment_id, ingested_at",
    "usage_hour": "",
    "usage_day": "",
    "usage_month": "",
    "usage_tag_hour": "",
    "usage_spend": "",
}


def digest_of_usage(of: tuple[str, ...] = tuple(TABLES)) -> str:
    """SHA-256 over every row of every table, in the order of its text."""
    told = hashlib.sha256()
    with psycopg.connect(environment.database_url("postgres")) as admin:
        for table in of:
            left_out = TABLES[table].replace(" ", "").split(",") if TABLES[table] else []
            rows = admin.execute(
                f"SELECT row FROM (SELECT (to_jsonb(t) - %s::text[])::text AS row FROM {table} t)"
                ' AS rows ORDER BY row COLLATE "C"',
                [left_out],
            ).fetchall()
            told.update(f"{table} {len(rows)}\n".encode())
            for (row,) in rows:
                told.update(row.encode() + b"\n")
    return told.hexdigest()


def drop_days_past_keeping() -> None:
    """Partitions other tests left behind, which the archiver would find, and closed ones."""
    with psycopg.connect(environment.database_url("postgres"), autocommit=True) as admin:
        found = admin.execute(
            "SELECT relname FROM pg_class WHERE relname ~ '^usage_event_[0-9]{8}$'"
            " AND to_date(right(relname, 8), 'YYYYMMDD') < current_date - 300"
        ).fetchall()
        for (name,) in found:
            admin.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
