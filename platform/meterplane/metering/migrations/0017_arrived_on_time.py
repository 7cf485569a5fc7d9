"""Whether usage of what was settled has arrived since, without reading the usage.

Whoever bills a span of usage says until when it is settled. What takes usage in raises
`revision` with everything it adds, and `on_time` with what is of no earlier instant than that: as
long as both are equal, nothing of what was settled has grown.

Expands only. A worker that still runs the code before this one raises `revision` alone: what it
adds counts as late until it was looked at.
"""

from django.db import migrations

COLUMNS = """
ALTER TABLE usage_revision
  ADD COLUMN on_time bigint NOT NULL DEFAULT 0,
  ADD COLUMN settled_until timestamptz,
  ADD COLUMN added_from timestamptz;

-- In the transaction of `hold_usage_arrivals`, whose lock it keeps.
CREATE FUNCTION settle_usage_arrivals(until timestamptz) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $body$
  UPDATE usage_revision SET settled_until = until, on_time = revision
   WHERE tenant_id = current_setting('app.tenant_id')::uuid
$body$;
REVOKE EXECUTE ON FUNCTION settle_usage_arrivals FROM PUBLIC;
GRANT EXECUTE ON FUNCTION settle_usage_arrivals TO meterplane_app, meterplane_system;
"""
BACK = """
DROP FUNCTION settle_usage_arrivals(timestamptz);
ALTER TABLE usage_revision
  DROP COLUMN on_time, DROP COLUMN settled_until, DROP COLUMN added_from;
"""


class Migration(migrations.Migration):
    dependencies = [("metering", "0016_served_where")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RunSQL(COLUMNS, BACK),
    ]
