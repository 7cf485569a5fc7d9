"""`make bench-ingest`: usage into PostgreSQL, and out of it, with an empty table and a full one.

Segments as gateways seal them go through Celery's own entry (`metering.tasks`) in one and in two
processes, beside a PostgreSQL that shares their cores. Every line is of one run on one machine;
"CPU us" are the microseconds of processor that an event takes of the worker and of PostgreSQL,
which do not hang on who else is at work, and "on 2 cores" what follows from them. Afterwards every
event is looked for: none may be missing or there twice, and all sums must agree.

`--rows` are there before the second half (50,000,000); `--quick` is 1,000,000 and shorter rounds.
"""

import argparse
import os
import sys
import time
from datetime import UTC, datetime, timedelta

import psycopg

from tests.benchmarks.ingest.fill import fill
from tests.benchmarks.ingest.server import TUNED, Key, Server, onboard, own_server
from tests.benchmarks.ingest.workers import Sustained, drained, sustained

TARGET_PER_S = 25_000
QUERY_MS_MAX = 100
DRAIN_MIN = 5
QUERIES = 50

AUDIT = """
SELECT (SELECT count(*) FROM usage_event),
       (SELECT count(*) FROM (SELECT DISTINCT tenant_id, request_id FROM usage_event) AS ids),
       (SELECT sum(events) FROM usage_hour), (SELECT sum(events) FROM usage_day),
       (SELECT sum(cost_nano) FROM usage_event), (SELECT sum(cost_nano) FROM usage_hour),
       (SELECT sum(cost_nano) FROM usage_day)
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-ingest")
    parser.add_argument("--rows", type=int, help="events that are there already")
    parser.add_argument("--quick", action="store_true", help="a million, and shorter rounds")
    parser.add_argument("--events", type=int, help="taken in in each round")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", default="/var/tmp", help="on a real disk: 35 GB for 50 million")
    parser.add_argument(
        "--gateway", type=int, default=2_000,
        help="requests a second of one gateway worker at full speed, of `make bench-gateway`",
    )  # fmt: skip
    chosen = parser.parse_args()
    chosen.rows = chosen.rows or (1_000_000 if chosen.quick else 50_000_000)
    chosen.events = chosen.events or (30_000 if chosen.quick else 1_200_000)
    return chosen


def line(what: str, found: Sustained) -> None:
    load = os.getloadavg()[0]
    print(
        f"  {what:34}{found.events:>10,}{found.rate:>10,.0f}{found.python_us:>8.1f}"
        f"{found.postgres_us:>8.1f}{found.capacity:>10,.0f}{load:>7.1f}",
        flush=True,
    )


def head(title: str) -> None:
    print(f"\n  {title}")
    print(f"  {'':34}{'events':>10}{'events/s':>10}{'CPU us':>8}{'of PG':>8}{'on 2 cores':>10}"
          f"{'load':>7}")  # fmt: skip


def rounds(server: Server, keys: list[Key], events: int, seed: int) -> Sustained:
    for workers in (1, 2):
        found = sustained(server, keys, workers, events, seed + 10 * workers)
        line(f"{workers} worker{'s' * (workers > 1)}", found)
    return found


def baselines(server: Server) -> None:
    """The same rows through PostgreSQL alone: without an index, a sum or a question."""
    head("PostgreSQL alone, the rows of the last round")
    with server.connect() as admin:
        admin.execute("CREATE TABLE bench_rows AS SELECT * FROM usage_event LIMIT 200000")
        admin.execute("CREATE TABLE bench_bare (LIKE bench_rows)")
        admin.execute("CREATE TABLE bench_indexed (LIKE usage_event INCLUDING ALL)")
        for what, act in (
            ("bare COPY, no index", _copy),
            ("INSERT .. SELECT alone, indexed", _insert),
        ):
            cpu_s, began = server.cpu_s(), time.perf_counter()
            count = act(admin)
            took_s = time.perf_counter() - began
            line(what, Sustained(count, took_s, 0.0, (server.cpu_s() - cpu_s) / count * 1e6))
        admin.execute("DROP TABLE bench_rows, bench_bare, bench_indexed")


def _copy(admin: psycopg.Connection) -> int:
    with (
        psycopg.connect(admin.info.dsn, password=admin.info.password) as other,
        admin.cursor().copy("COPY bench_rows TO STDOUT (FORMAT BINARY)") as out,
        other.cursor() as cursor,
    ):
        with cursor.copy("COPY bench_bare FROM STDIN (FORMAT BINARY)") as into:
            for data in out:
                into.write(data)
        return cursor.rowcount


def _insert(admin: psycopg.Connection) -> int:
    return admin.execute("INSERT INTO bench_indexed SELECT * FROM bench_rows").rowcount


def audit(server: Server) -> bool:
    """Whether each event is there once and in every sum."""
    with server.connect() as admin:
        row = admin.execute(AUDIT).fetchone()
    assert row is not None
    events, ids, hours, days, *costs = row
    print(f"\n  {events:,} events, {ids:,} ids, {hours:,} in hours, {days:,} in days")
    return len({events, ids, int(hours), int(days)}) == 1 == len(set(map(int, costs)))


def month(keys: list[Key]) -> float:
    """A month by model and day, as the portal asks; p99 in milliseconds."""
    from meterplane.metering import usage_table
    from meterplane.metering.usage_query import UsageQuery
    from tenants.scoping import system_scope, tenant_scope

    end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    query = UsageQuery(end - timedelta(days=30), end, bucket="day", group_by=("model",))
    worst = 0.0
    doors = {
        "one organisation": lambda n: tenant_scope(keys[n % len(keys)].tenant_id),
        "everybody (the operator's)": lambda n: system_scope("benchmark"),
    }
    print("\n  a month by model and day, from the sums")
    for what, door in doors.items():
        took_ms = []
        for number in range(QUERIES):
            began = time.perf_counter()
            with door(number):
                found = usage_table.run(query).rows
            took_ms.append((time.perf_counter() - began) * 1000)
        took_ms.sort()
        p50, p99 = took_ms[QUERIES // 2], took_ms[int(QUERIES * 0.99)]
        print(f"  {what:34}{len(found):>6} rows   p50 {p50:7.1f} ms   p99 {p99:7.1f} ms")
        worst = worst or p99
    return worst


def measure(server: Server, chosen: argparse.Namespace) -> list[str]:
    """Everything, printed. What was missed is returned."""
    from django.db import connections

    from meterplane.metering import partitions

    keys = onboard()
    partitions.ensure_days_ahead()
    connections.close_all()
    head("an empty table")
    empty = rounds(server, keys, chosen.events, chosen.seed)
    baselines(server)
    print(f"\n  filling: {chosen.rows:,} events of 30 days")
    fill(server, chosen.rows, datetime.now(UTC).date())
    head(f"beside {chosen.rows:,} events")
    full = rounds(server, keys, chosen.events, chosen.seed + 1000)
    chain = drained(server, keys, chosen.events // 4, chosen.seed + 2000)
    line("shipper and one worker, from disk", chain)
    print(f"\n  full over empty: {full.capacity / empty.capacity:.2f} of the capacity")
    drain = full.rate / chosen.gateway
    print(f"  drain: {drain:.1f} times what a gateway of {chosen.gateway:,} requests/s leaves")
    missed = [] if audit(server) else ["events were lost, doubled or summed up wrongly"]
    p99_ms = month(keys)
    if full.rate < TARGET_PER_S:
        missed.append(f"{TARGET_PER_S:,} events/s: {full.rate:,.0f}, with a load of other work too")
    if p99_ms > QUERY_MS_MAX:
        missed.append(f"a month in {QUERY_MS_MAX} ms: {p99_ms:.0f}")
    if drain < DRAIN_MIN:
        missed.append(f"drain of {DRAIN_MIN} times the inflow: {drain:.1f}")
    connections.close_all()
    return missed


def main() -> int:
    """0 when every target was met."""
    chosen = arguments()
    print(f"\n  {os.cpu_count()} cores, everything on them; seed {chosen.seed}; 20 organisations,")
    print(f"  40 keys, 3 models; fsync and synchronous_commit on, {TUNED}")
    with own_server(chosen.folder) as server:
        missed = measure(server, chosen)
    print("\n" + ("\n".join(f"  missed: {each}" for each in missed) or "  all targets are met"))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
