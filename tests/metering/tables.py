"""All tables that usage is in, as one digest: what two ways of taking it in must agree on."""

import hashlib

import psycopg

from tests import environment

# Who inserted an event first, and when, is chance; the sum of a table's revisions is, too.
TABLES = {
    "usage_event": "segment_id, ingested_at",
    "usage_hour": "",
    "usage_day": "",
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
