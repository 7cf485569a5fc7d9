"""Usage says the class of a request, and where and on what it was served; sums tell it apart.

Expands only, on tables of any size. Constant defaults: no row is rewritten, and what still runs the
code before this one goes on inserting. The keys of `usage_hour` and `usage_day` grow by the three
columns as `0004` grew the hour's: each new one is built beside the old one without a lock, and the
two change places in one statement, which waits for its lock at most five seconds. Partitions get
the columns from their parent, new ones through `ensure_usage_partition`, which copies it; no
function that fills them names columns.

Every step can be run again: one that was cut off finds its columns there, and leaves an index that
is dropped first.

The limit: from the swap on, a worker that still runs the code before this one cannot add to an
hour. Its segments stay on their gateways' disks and are taken in by the workers that follow.
"""

from django.db import migrations

LOCKS_SOON = "SET lock_timeout = '5s'"
SUMMED = ("usage_hour", "usage_day")
ADDED = ("priority", "region", "gpu_type")
OLD_KEYS = {
    table: f"tenant_id, {at}, project_id, key_id, model, surface, status, price_version_id,"
    " currency, service_tier, deployment"
    for table, at in (("usage_hour", "hour"), ("usage_day", "day"))
}


def columns(table: str) -> str:
    """One statement, and so all of it or nothing."""
    return f"""
ALTER TABLE {table}
  ADD COLUMN IF NOT EXISTS priority text NOT NULL DEFAULT 'normal',
  ADD COLUMN IF NOT EXISTS region text NOT NULL DEFAULT '',
  ADD COLUMN IF NOT EXISTS gpu_type text NOT NULL DEFAULT '',
  DROP CONSTRAINT IF EXISTS {table}_priority_known,
  ADD CONSTRAINT {table}_priority_known CHECK (priority IN ('high', 'normal', 'low')) NOT VALID
"""


def columns_back(table: str) -> str:
    return f"ALTER TABLE {table} " + ", ".join(f"DROP COLUMN {name}" for name in ADDED)


def swapped(table: str, key: str) -> list[str]:
    """Statements, each a transaction of its own, that leave `key` as the primary key."""
    return [
        LOCKS_SOON,
        f"DROP INDEX IF EXISTS {table}_next_key",
        # Waits for those who write, never the other way round: it may take longer than a lock may.
        "SET lock_timeout = 0",
        f"CREATE UNIQUE INDEX CONCURRENTLY {table}_next_key ON {table} ({key})",
        LOCKS_SOON,
        f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey,"
        f" ADD CONSTRAINT {table}_pkey PRIMARY KEY USING INDEX {table}_next_key",
    ]


# As in 0014, but for the columns that a day is summed by.
REBUILD = """
CREATE OR REPLACE FUNCTION rebuild_usage_days(first_day date, last_day date) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '5s'
AS $body$
DECLARE
  starts timestamptz := first_day::timestamp AT TIME ZONE 'UTC';
  ends timestamptz := (last_day + 1)::timestamp AT TIME ZONE 'UTC';
  wrong record;
  made bigint;
BEGIN
  LOCK TABLE usage_day IN SHARE ROW EXCLUSIVE MODE;
  SELECT * INTO wrong FROM (
    SELECT tenant_id, event_day AS day, count(*) AS events, sum(cost_nano) AS cost_nano,
           sum(tokens_in) AS tokens_in, sum(tokens_out) AS tokens_out
      FROM usage_event WHERE event_day BETWEEN first_day AND last_day GROUP BY 1, 2
  ) e FULL JOIN (
    SELECT tenant_id, (hour AT TIME ZONE 'UTC')::date AS day, sum(events) AS events,
           sum(cost_nano) AS cost_nano, sum(tokens_in) AS tokens_in, sum(tokens_out) AS tokens_out
      FROM usage_hour WHERE hour >= starts AND hour < ends GROUP BY 1, 2
  ) h USING (tenant_id, day)
   WHERE (e.events, e.cost_nano, e.tokens_in, e.tokens_out)
         IS DISTINCT FROM (h.events, h.cost_nano, h.tokens_in, h.tokens_out)
     AND NOT EXISTS (SELECT FROM usage_archive a WHERE a.day = COALESCE(e.day, h.day)
                        AND a.dropped_at IS NOT NULL)
   LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'hours and events of organisation % differ on %: nothing was rebuilt',
      wrong.tenant_id, wrong.day USING ERRCODE = 'data_exception';
  END IF;
  DELETE FROM usage_day WHERE day BETWEEN first_day AND last_day;
  INSERT INTO usage_day (tenant_id, day, {by}, {sums})
  SELECT tenant_id, (hour AT TIME ZONE 'UTC')::date, {by}, {summed}
    FROM usage_hour WHERE hour >= starts AND hour < ends
   GROUP BY tenant_id, 2, {by};
  GET DIAGNOSTICS made = ROW_COUNT;
  RETURN made;
END $body$;
"""
SUMS = (
    "events", "requests", "tokens_in", "tokens_out", "rows", "bytes_in", "bytes_out", "cost_nano",
    "total_ms_sum", "tensor_bytes_in", "tensor_bytes_out", "compute_us_sum", "first_byte_ms_sum",
)  # fmt: skip


def rebuild(added: str) -> str:
    """The function that sums days by what was before, and by what was added."""
    by = OLD_KEYS["usage_day"].removeprefix("tenant_id, day, ") + added
    summed = ", ".join(f"sum({name})" for name in SUMS)
    return REBUILD.format(by=by, sums=", ".join(SUMS), summed=summed)


class Migration(migrations.Migration):
    atomic = False  # an index is built concurrently outside of a transaction only
    dependencies = [("metering", "0015_arrivals")]

    operations = [
        migrations.RunSQL(LOCKS_SOON, migrations.RunSQL.noop),
        *(
            migrations.RunSQL(columns(table), columns_back(table))
            for table in ("usage_event", *SUMMED)
        ),
        # The way back holds only while no hour has two classes or places: nothing is merged.
        *(
            migrations.RunSQL(
                swapped(table, f"{OLD_KEYS[table]}, {', '.join(ADDED)}"),
                swapped(table, OLD_KEYS[table]),
            )
            for table in SUMMED
        ),
        migrations.RunSQL(rebuild(f", {', '.join(ADDED)}"), rebuild("")),
        migrations.RunSQL(
            [
                f"ALTER TABLE {table} VALIDATE CONSTRAINT {table}_priority_known"
                for table in ("usage_event", *SUMMED)
            ],
            migrations.RunSQL.noop,
        ),
    ]
