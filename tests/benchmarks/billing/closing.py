"""Closing a month for thousands of customers, and one customer's spend until now.

Customers and a month of hourly sums are written by PostgreSQL itself; then the month is closed as
`manage.py close_months` does, in one process per core beside a PostgreSQL that shares them. The
smaller run of the same says whether it grows in line with their number. Afterwards every invoice is
held against the sums: quantities and amounts, to the cent, by SQL that knows nothing of rating.

Fewer customers have a year of closed months behind them: what the last of those costs beside the
first says what history does.
"""

import gc
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from meterplane.kernel.invariant import ensure
from tests.benchmarks.ingest.server import Server, own_server

Run = Callable[[Server, int], tuple[bool, float]]  # whether its targets are met, and seconds

CUSTOMERS, CUSTOMERS_QUICK, CUSTOMERS_OF_A_YEAR = 10_000, 1_000, 120
AGGREGATES = 1_000  # of each: 8 models x 5 keys x 25 days
MODELS, KEYS, DAYS = 8, 5, 25
MONTH_S_MAX = 300
MEMORY_MB_MAX = 500
SPEND_MS_MAX = 20
SPENDS = 60
PROCESSES = 2
YEAR_RATIO_MAX = 1.5
MONTH = datetime(2026, 10, 1, tzinfo=UTC)
END = datetime(2026, 11, 1, tzinfo=UTC)

_CUSTOMERS = """
INSERT INTO organisation (id, slug, name, currency, standing, standing_reason, priority, weight,
                          is_demo, created_at)
SELECT gen_random_uuid(), 'customer-' || n, 'Customer ' || n, 'USD', 'active', '', 'normal', 1,
       false, %(from)s
  FROM generate_series(1, %(customers)s) AS n
"""
_SUMS = """
INSERT INTO usage_hour (tenant_id, hour, project_id, key_id, model, surface, status,
  price_version_id, currency, service_tier, deployment, events, requests, tokens_in, tokens_out,
  rows, bytes_in, bytes_out, cost_nano, total_ms_sum, tensor_bytes_in, tensor_bytes_out,
  compute_us_sum, first_byte_ms_sum)
SELECT o.id, %(from)s + d * interval '1 day', o.id, md5(o.id::text || k)::uuid,
       'model-' || m, 'openai.chat', 'ok', %(version)s, 'USD',
       'standard', '', 10, 10, 1000 + d * 7 + k + m, 300 + d * 3 + k, 10,
       0, 0, 0, 0, 0, 0, 0, 0
  FROM organisation o, generate_series(0, %(days)s - 1) AS d, generate_series(1, %(keys)s) AS k,
       generate_series(1, %(models)s) AS m
 WHERE o.slug LIKE 'customer-%%'
"""
_DAYS = """
INSERT INTO usage_day (tenant_id, day, project_id, key_id, model, surface, status,
  price_version_id, currency, service_tier, deployment, events, requests, tokens_in, tokens_out,
  rows, bytes_in, bytes_out, cost_nano, total_ms_sum, tensor_bytes_in, tensor_bytes_out,
  compute_us_sum, first_byte_ms_sum)
SELECT tenant_id, (hour AT TIME ZONE 'UTC')::date, project_id, key_id, model, surface, status,
       price_version_id, currency, service_tier, deployment, events, requests, tokens_in,
       tokens_out, rows, bytes_in, bytes_out, cost_nano, total_ms_sum, tensor_bytes_in,
       tensor_bytes_out, compute_us_sum, first_byte_ms_sum
  FROM usage_hour
"""
# What each invoice must say, reckoned from the sums and the prices alone.
_AUDIT = """
WITH used AS (
  SELECT tenant_id, model, unnest(ARRAY['input_tokens', 'output_tokens', 'requests']) AS meter,
         unnest(ARRAY[sum(tokens_in), sum(tokens_out), sum(requests)]) AS quantity
    FROM usage_hour GROUP BY tenant_id, model
), owed AS (
  SELECT u.tenant_id, u.model, u.meter, u.quantity,
         round(u.quantity * p.unit_price_pico / 1e12, 2) * 100 AS amount_minor
    FROM used u JOIN price p ON (p.version_id, p.model, p.meter) = (%(version)s, u.model, u.meter)
)
SELECT count(*) FILTER (
         WHERE (o.quantity, o.amount_minor) IS DISTINCT FROM (l.quantity, l.amount_minor)),
       count(*), (SELECT count(*) FROM invoice),
       (SELECT sum(total_minor) FROM invoice) = sum(o.amount_minor)
  FROM owed o FULL JOIN invoice_line l USING (tenant_id, model, meter)
"""


def measure(quick: bool) -> bool:
    """Print what closing takes; True if every target is met."""
    sizes = (CUSTOMERS_QUICK,) if quick else (CUSTOMERS_QUICK, CUSTOMERS)
    found = [_in_own_process(_close, customers) for customers in sizes]
    if not quick:
        each_s = [took_s / customers for customers, (_, took_s) in zip(sizes, found, strict=True)]
        print(f"\n  each of {CUSTOMERS:,} takes {each_s[1] / each_s[0]:.2f} of the time of each of"
              f" {CUSTOMERS_QUICK:,}")  # fmt: skip
    found.append(_in_own_process(_a_year, CUSTOMERS_OF_A_YEAR))
    return all(met for met, _ in found)


def _in_own_process(run: Run, customers: int) -> tuple[bool, float]:
    """Django is set up once in a process, for one server."""
    context = multiprocessing.get_context("fork")
    told: Any = context.SimpleQueue()
    process = context.Process(target=_run, args=(run, customers, told))
    process.start()
    process.join()
    ensure(process.exitcode == 0, "the run came to its end")
    found: tuple[bool, float] = told.get()
    return found


def _run(run: Run, customers: int, told: Any) -> None:
    with own_server("/var/tmp") as server:
        told.put(run(server, customers))


def _close(server: Server, customers: int) -> tuple[bool, float]:
    from billing.invoicing import due
    from meterplane.kernel import clock

    version = _publish()
    began = time.monotonic()
    _write(server, customers, version, [MONTH])
    print(f"\n  {customers:,} customers with {AGGREGATES:,} aggregates each: written in"
          f" {time.monotonic() - began:.0f} s")  # fmt: skip
    gc.collect()
    gc.freeze()  # as web processes and workers do
    with clock.frozen(END + timedelta(hours=2)):
        spend_ms, again_ms = _spend(server), _spend(server)
        assert due.count_due(END) == customers
        cpu_s, began = server.cpu_s(), time.monotonic()
        python_s, peak_mb, problems = _in_processes()
        took_s = time.monotonic() - began
        cpu_s = server.cpu_s() - cpu_s
    with server.connect() as admin:
        wrong, lines, invoices, totals_agree = admin.execute(
            _AUDIT, {"version": version}
        ).fetchone()
    sound = (wrong, problems, invoices, totals_agree) == (0, 0, customers, True)
    print(f"  closed in {took_s:.1f} s with {PROCESSES} processes:"
          f" {customers / took_s:.0f} a second; a customer costs"
          f" {python_s / customers * 1000:.1f} ms of Python and"
          f" {cpu_s / customers * 1000:.1f} of PostgreSQL")  # fmt: skip
    print(f"  memory of a process: {peak_mb} MB at most; load {os.getloadavg()[0]:.1f}")
    print(f"  {invoices:,} invoices, {lines:,} lines, {wrong} differ from the sums,"
          f" {problems} organisations could not be closed")  # fmt: skip
    print(f"  one customer's spend until now: p50 {statistics.median(spend_ms):.1f} ms,"
          f" p99 {max(spend_ms):.1f} ms; looked at again:"
          f" p50 {statistics.median(again_ms):.1f}, p99 {max(again_ms):.1f}")  # fmt: skip
    fast = took_s <= MONTH_S_MAX * customers / CUSTOMERS
    lean = peak_mb <= MEMORY_MB_MAX and statistics.median(spend_ms) <= SPEND_MS_MAX
    return sound and fast and lean, took_s


def _a_year(server: Server, customers: int) -> tuple[bool, float]:
    from billing.invoicing.close import close_period
    from meterplane.kernel import clock

    starts = [datetime(2025, month, 1, tzinfo=UTC) for month in (10, 11, 12)]
    starts += [datetime(2026, month, 1, tzinfo=UTC) for month in range(1, 11)]
    with clock.frozen(starts[0]):
        version = _publish()
    _write(server, customers, version, starts)
    gc.collect()
    gc.freeze()
    with server.connect() as admin:
        tenants = admin.execute("SELECT id FROM organisation WHERE NOT is_demo").fetchall()
    spend_ms, close_ms = [], []
    for end in (*starts[1:], END):
        with clock.frozen(end - timedelta(hours=1)):
            spend_ms.append(statistics.median(_spend(server, end - timedelta(hours=1))))
        began = time.monotonic()
        with clock.frozen(end + timedelta(hours=2)):
            for (tenant_id,) in tenants:
                close_period(tenant_id, end)
        close_ms.append((time.monotonic() - began) / len(tenants) * 1000)
    ratios = [told[-1] / told[1] for told in (close_ms, spend_ms)]
    print(f"\n  {customers} customers with {len(starts) - 1} closed months behind them, one after"
          f" the other:\n  a close takes {close_ms[-1]:.1f} ms, {ratios[0]:.2f} of their second;"
          f" the spend until now {spend_ms[-1]:.1f} ms, {ratios[1]:.2f} of it")  # fmt: skip
    met = max(ratios) <= YEAR_RATIO_MAX and spend_ms[-1] <= SPEND_MS_MAX
    return met, close_ms[-1] / 1000 * len(tenants)


def _write(server: Server, customers: int, version: Any, months: Sequence[datetime]) -> None:
    values = {"customers": customers, "from": months[0], "version": version, "days": DAYS,
              "keys": KEYS, "models": MODELS}  # fmt: skip
    with server.connect() as admin:
        admin.execute(_CUSTOMERS, values)
        # Hours are held to keys, which nobody asks for here: 50,000 of them are not made.
        admin.execute("SET session_replication_role = replica")
        for month in months:
            admin.execute(_SUMS, values | {"from": month})
        admin.execute(_DAYS)  # each day has one hour, so that an hour is a day's sum
        admin.execute("SELECT rebuild_usage_months(min(day), max(day)) FROM usage_day")
        admin.execute("VACUUM ANALYZE")
        admin.execute("CHECKPOINT")  # what was just written is not written out by who reads


def _publish() -> Any:
    from billing.pricing.book import ModelPrices
    from billing.pricing.publish import create_draft, publish

    prices = {
        f"model-{number}": ModelPrices(150_000 * number, 600_000 * number, 1_000_000)
        for number in range(1, MODELS + 1)
    }
    draft = create_draft(book="standard", currency="USD", prices=prices)
    return publish(draft.id, confirm=["gap"]).version_id


def _spend(server: Server, at: datetime = END - timedelta(hours=1)) -> list[float]:
    """Milliseconds of the invoice to come, of one customer after the other."""
    from billing.invoicing.queries import upcoming_invoice
    from tenants.scoping import tenant_scope

    with server.connect() as admin:
        found = admin.execute(
            "SELECT id FROM organisation WHERE slug LIKE 'customer-%%' ORDER BY id LIMIT %s",
            [SPENDS + 1],
        ).fetchall()
    took_ms = []
    for (tenant_id,) in found:
        began = time.perf_counter()
        with tenant_scope(tenant_id):
            assert upcoming_invoice(at) is not None
        took_ms.append((time.perf_counter() - began) * 1000)
    return took_ms[1:]  # the first connects


def _in_processes() -> tuple[float, int, int]:
    """Seconds of processor, the most memory of one process in MB, and who could not be closed."""
    from django.db import connections

    connections.close_all()
    context = multiprocessing.get_context("fork")
    told: Any = context.SimpleQueue()
    workers = [context.Process(target=_work, args=(first, told)) for first in range(PROCESSES)]
    for worker in workers:
        worker.start()
    found = [told.get() for _ in workers]
    for worker in workers:
        worker.join()
    return sum(f[0] for f in found), max(f[1] for f in found), sum(f[2] for f in found)


def _work(first: int, told: Any) -> None:
    from billing.invoicing import due

    before = resource.getrusage(resource.RUSAGE_SELF)
    problems = 0
    for shard in range(first, due.SHARDS, PROCESSES):
        problems += sum(bool(each.problem) for each in due.close_shard(END, shard))
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    told.put((spent, used.ru_maxrss // 1024, problems))
