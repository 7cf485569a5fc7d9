"""A month of usage that is there already, made by PostgreSQL itself: events and sums agree."""

import time
from datetime import date, timedelta

import psycopg
from psycopg import sql

from tests.benchmarks.ingest.segments import MODELS, PRICES
from tests.benchmarks.ingest.server import Server

DAYS = 30

# Every event is of the key, model and millisecond that its number says. As `rows.py` has it, an id
# begins with its millisecond; the rest of it is a digest of the number.
_EVENTS = """
INSERT INTO {partition} (tenant_id, event_day, request_id, event_at, project_id, key_id, model,
  surface, stream, status, http_status, tokens_in, tokens_out, requests, rows, bytes_in, bytes_out,
  provenance, currency, price_version_id, cost_nano, reserved_nano, settled_at, first_byte_ms,
  total_ms, server, epoch, admitted_at, tags, segment_id)
SELECT k.tenant_id, {day}, (lpad(to_hex(ms), 12, '0') || '7' || substr(digest, 1, 3) || '8'
         || substr(digest, 4, 15))::uuid, at, k.project_id, k.id,
       ({models}::text[])[1 + n %% 3], 'openai.chat', n %% 2 = 0,
       CASE WHEN n %% 30 = 0 THEN 'error' ELSE 'ok' END, 200, 20 + n %% 1980, 1 + n %% 499, 1, 1,
       4000, 1000, 'engine', 'USD', {prices}, 150 * (20 + n %% 1980) + 600 * (1 + n %% 499),
       1000000, at + interval '1 second', 250, 1000, 'triton-0.internal:8001',
       '0194c7a2b3f07a1e9d2c4b5a69788796', at,
       CASE WHEN n %% 3 = 0 THEN '{{"team": "search"}}'::jsonb ELSE '{{}}'::jsonb END, {prices}
  FROM (SELECT n, md5(n::text || {day}::text) AS digest, ms,
               to_timestamp(ms / 1000.0) AS at
          FROM (SELECT n, {start_ms} + n * 86400000 / {count} AS ms
                  FROM generate_series(0, {count} - 1) AS n) AS numbered) AS e
  JOIN bench_key k ON k.number = (n / 3) %% {keys}
 ORDER BY k.tenant_id, ms, digest
"""
_SUMMED = (
    "count(*), sum(requests), sum(tokens_in), sum(tokens_out), sum(rows), sum(bytes_in),"
    " sum(bytes_out), sum(cost_nano), sum(total_ms), sum(tensor_bytes_in), sum(tensor_bytes_out),"
    " sum(compute_us), sum(first_byte_ms)"
)
_SUMS = (
    "events, requests, tokens_in, tokens_out, rows, bytes_in, bytes_out, cost_nano, total_ms_sum,"
    " tensor_bytes_in, tensor_bytes_out, compute_us_sum, first_byte_ms_sum"
)
_BY = (
    "project_id, key_id, model, surface, status, price_version_id, currency, service_tier,"
    " deployment, priority, region, gpu_type"
)
_HOURS = f"""
INSERT INTO usage_hour (tenant_id, hour, {_BY}, {_SUMS})
SELECT tenant_id, date_trunc('hour', event_at, 'UTC'), {_BY}, {_SUMMED}
  FROM {{partition}} GROUP BY tenant_id, 2, {_BY}
"""
_DAYS = f"""
INSERT INTO usage_day (tenant_id, day, {_BY}, {_SUMS})
SELECT tenant_id, {{day}}, {_BY}, {", ".join(f"sum({name})" for name in _SUMS.split(", "))}
  FROM usage_hour WHERE (hour AT TIME ZONE 'UTC')::date = {{day}} GROUP BY tenant_id, {_BY}
"""


def fill(server: Server, rows: int, until: date) -> None:
    """`rows` events over the `DAYS` days before `until`, with a line of progress."""
    began, each = time.monotonic(), rows // DAYS
    with server.connect() as admin:
        admin.execute("SET synchronous_commit = off")
        admin.execute(
            "CREATE TABLE bench_key AS SELECT row_number() OVER (ORDER BY id) - 1 AS number,"
            " id, tenant_id, project_id FROM api_key"
        )
        for number in range(DAYS):
            _fill_day(admin, until - timedelta(days=DAYS - number), each)
            took_s = time.monotonic() - began
            print(f"\r  {each * (number + 1):>12,} events, {took_s:,.0f} s", end="", flush=True)
        for table in ("usage_event", "usage_hour", "usage_day"):
            admin.execute(sql.SQL("VACUUM ANALYZE {}").format(sql.Identifier(table)))
        admin.execute("CHECKPOINT")
    print(f"\r  {each * DAYS:>12,} events are there, {time.monotonic() - began:,.0f} s")


def _fill_day(admin: psycopg.Connection, day: date, count: int) -> None:
    # Filled before it is attached, which builds its indexes at once: a tenth of the time.
    partition = sql.Identifier(f"usage_event_{day:%Y%m%d}")
    row = admin.execute("SELECT count(*) FROM bench_key").fetchone()
    assert row is not None
    values = {
        "partition": partition,
        "day": sql.SQL("{}::date").format(sql.Literal(day)),
        "start_ms": sql.Literal((day - date(1970, 1, 1)).days * 86_400_000),
        "count": sql.SQL("{}::bigint").format(sql.Literal(count)),
        "keys": sql.Literal(row[0]),
        "models": sql.Literal(list(MODELS)),
        "prices": sql.SQL("{}::uuid").format(sql.Literal(PRICES)),
    }
    with admin.transaction():
        admin.execute(
            sql.SQL(
                "CREATE TABLE {} (LIKE usage_event INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
            ).format(partition)
        )
        admin.execute(sql.SQL("ALTER TABLE {} OWNER TO meterplane_owner").format(partition))
        admin.execute(sql.SQL(_EVENTS.replace("%%", "%")).format(**values))
        admin.execute(
            sql.SQL(
                "ALTER TABLE usage_event ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})"
            ).format(partition, sql.Literal(str(day)), sql.Literal(str(day + timedelta(days=1))))
        )
        admin.execute(sql.SQL(_HOURS).format(**values))
        admin.execute(sql.SQL(_DAYS).format(**values))
