"""Sums by month of what bills ask for, kept by PostgreSQL: see `decisions/0036`.

Whatever writes sums by day changes those of their month in the same statement, a worker that still
runs the code before this one among it. Expands only. Nothing is taken in while the months there are
are summed up: some seconds for a million sums by day.
"""

import django.db.models.deletion
from django.db import migrations, models

BY = "model, service_tier, price_version_id, currency, priority, region, gpu_type"
KEY = f"tenant_id, month, {BY}"
SUMS = ("events", "requests", "tokens_in", "tokens_out", "cost_nano")

# Not held to be positive itself: each is a sum of sums by day, which are, and what is taken away
# comes as a row of its own.
TABLE = f"""
CREATE TABLE usage_month (
  tenant_id uuid NOT NULL REFERENCES organisation (id),
  month date NOT NULL,
  model text NOT NULL,
  service_tier text NOT NULL,
  price_version_id uuid NOT NULL,
  currency text NOT NULL,
  priority text NOT NULL,
  region text NOT NULL,
  gpu_type text NOT NULL,
  {", ".join(f"{name} bigint NOT NULL" for name in SUMS)},
  PRIMARY KEY ({KEY}),
  CONSTRAINT usage_month_is_whole CHECK (month = date_trunc('month', month::timestamp)::date)
) WITH (fillfactor = 50);
SELECT meterplane_isolate('usage_month');
REVOKE INSERT, UPDATE, DELETE ON usage_month FROM meterplane_app;
REVOKE DELETE ON usage_month FROM meterplane_system;
"""

INSERT = f"""
INSERT INTO usage_month AS u ({KEY}, {", ".join(SUMS)})
SELECT tenant_id, date_trunc('month', day::timestamp)::date, {BY},
       {", ".join(f"sum({name})" for name in SUMS)}
  FROM {{source}}
 GROUP BY tenant_id, 2, {BY}
 ORDER BY tenant_id, 2, {BY}
"""  # noqa: S608  constants
MADE = "SELECT * FROM made"
TAKEN = f"SELECT tenant_id, day, {BY}, {', '.join(f'-{name} AS {name}' for name in SUMS)} FROM was"  # noqa: S608
CHANGED = f"SELECT tenant_id, day, {BY}, {', '.join(SUMS)} FROM made UNION ALL {TAKEN}"  # noqa: S608


def kept(act: str, tables: str, source: str) -> str:
    """In the order of their keys: two workers that meet wait for each other in one direction."""
    trigger = f"usage_day_{act.lower()}_in_month"
    return f"""
CREATE FUNCTION {trigger}() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  {INSERT.format(source=f"({source}) AS changed")}
  ON CONFLICT ({KEY})
  DO UPDATE SET {", ".join(f"{name} = u.{name} + excluded.{name}" for name in SUMS)};
  RETURN NULL;
END $body$;
CREATE TRIGGER {trigger} AFTER {act} ON usage_day REFERENCING {tables}
  FOR EACH STATEMENT EXECUTE FUNCTION {trigger}();
"""


KEPT = {
    "INSERT": kept("INSERT", "NEW TABLE AS made", MADE),
    "UPDATE": kept("UPDATE", "OLD TABLE AS was NEW TABLE AS made", CHANGED),
    "DELETE": kept("DELETE", "OLD TABLE AS was", TAKEN),
}

# Also fills the table. Of no day at all, it makes nothing.
REBUILD = f"""
CREATE FUNCTION rebuild_usage_months(first_day date, last_day date) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '5s'
AS $body$
DECLARE
  starts date := date_trunc('month', first_day::timestamp);
  ends date := date_trunc('month', last_day::timestamp) + interval '1 month';
  made bigint;
BEGIN
  LOCK TABLE usage_day IN SHARE ROW EXCLUSIVE MODE;
  DELETE FROM usage_month WHERE month >= starts AND month < ends;
  {INSERT.format(source="usage_day WHERE day >= starts AND day < ends")};
  GET DIAGNOSTICS made = ROW_COUNT;
  RETURN made;
END $body$;
REVOKE EXECUTE ON FUNCTION rebuild_usage_months FROM PUBLIC, meterplane_app;
"""
FILL = "SELECT rebuild_usage_months(min(day), max(day)) FROM usage_day"

UNDO = "\n".join(
    f"DROP TRIGGER usage_day_{act.lower()}_in_month ON usage_day;"
    f" DROP FUNCTION usage_day_{act.lower()}_in_month();"
    for act in KEPT
) + "\nDROP FUNCTION rebuild_usage_months(date, date); DROP TABLE usage_month;"


class Migration(migrations.Migration):
    dependencies = [("metering", "0017_arrived_on_time")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RunSQL([TABLE, *KEPT.values(), REBUILD, FILL], UNDO),
        # The table exists; Django only learns its name.
        migrations.CreateModel(
            name='UsageMonth',
            fields=[
                ('pk', models.CompositePrimaryKey('tenant_id', 'month', 'model', 'service_tier', 'price_version_id', 'currency', 'priority', 'region', 'gpu_type', blank=True, editable=False, primary_key=True, serialize=False)),
                ('month', models.DateField()),
                ('model', models.TextField()),
                ('service_tier', models.TextField()),
                ('price_version_id', models.UUIDField()),
                ('currency', models.TextField()),
                ('priority', models.TextField()),
                ('region', models.TextField()),
                ('gpu_type', models.TextField()),
                ('events', models.BigIntegerField()),
                ('requests', models.BigIntegerField()),
                ('tokens_in', models.BigIntegerField()),
                ('tokens_out', models.BigIntegerField()),
                ('cost_nano', models.BigIntegerField()),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'usage_month',
                'managed': False,
            },
        ),
    ]
