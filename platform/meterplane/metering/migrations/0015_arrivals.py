"""What of an organisation's usage a bill has counted can be told from what arrived after it.

`ingested_at` is the instant a transaction that takes usage in began, and not when it became
visible: between the two a bill may be made. So a segment remembers the transaction that took it in,
and a bill the snapshot it was made from: together they say it exactly, whatever ran at once.
"""

from django.db import migrations

REMEMBERED = """
-- In two steps: the rows there are have no such transaction, and are not rewritten to get one.
ALTER TABLE journal_segment ADD COLUMN IF NOT EXISTS taken_in_by xid8;
ALTER TABLE journal_segment ALTER COLUMN taken_in_by SET DEFAULT pg_current_xact_id();

-- Until the transaction ends, no more usage of the door's organisation becomes visible: what takes
-- it in has to raise `usage_revision` before it commits, and waits for this lock.
CREATE OR REPLACE FUNCTION hold_usage_arrivals(OUT seen_at timestamptz, OUT seen text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $body$
DECLARE
  tenant uuid := current_setting('app.tenant_id')::uuid;
BEGIN
  INSERT INTO usage_revision (tenant_id, revision) VALUES (tenant, 1) ON CONFLICT DO NOTHING;
  PERFORM FROM usage_revision WHERE tenant_id = tenant FOR SHARE;
  -- A statement of its own: its snapshot is younger than the lock.
  SELECT clock_timestamp(), pg_current_snapshot()::text INTO seen_at, seen;
END $body$;

-- Segments whose transaction began before `seen_at` and was not in the snapshot. No transaction of
-- a worker lives for an hour: its task is ended after ten minutes.
CREATE OR REPLACE FUNCTION usage_stragglers(seen_at timestamptz, seen text) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $body$
  SELECT segment_id FROM journal_segment s
   WHERE s.ingested_at BETWEEN usage_stragglers.seen_at - interval '1 hour'
                           AND usage_stragglers.seen_at
     AND NOT pg_visible_in_snapshot(s.taken_in_by, usage_stragglers.seen::pg_snapshot)
$body$;
REVOKE EXECUTE ON FUNCTION hold_usage_arrivals, usage_stragglers FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hold_usage_arrivals, usage_stragglers
  TO meterplane_app, meterplane_system;
"""
FORGOTTEN = """
DROP FUNCTION usage_stragglers(timestamptz, text);
DROP FUNCTION hold_usage_arrivals();
ALTER TABLE journal_segment DROP COLUMN taken_in_by;
"""


class Migration(migrations.Migration):
    atomic = False  # an index is built concurrently outside of a transaction only
    dependencies = [("metering", "0014_days_in_files")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RunSQL(REMEMBERED, FORGOTTEN),
        # Each step can be run again: an index whose building was cut off is there, and not valid.
        migrations.RunSQL(
            "DROP INDEX IF EXISTS journal_segment_ingested", migrations.RunSQL.noop
        ),
        migrations.RunSQL(
            "CREATE INDEX CONCURRENTLY journal_segment_ingested ON journal_segment (ingested_at)",
            "DROP INDEX journal_segment_ingested",
        ),
    ]
