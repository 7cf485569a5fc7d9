"""Days that are past keeping leave PostgreSQL for a file, and come back from it.

`close_usage_day` has PostgreSQL refuse what would still be inserted, from when it returns;
`drop_usage_day` takes a day away that is closed, recorded and as long as its file;
`restore_usage_day` makes room for it again. All run as the tables' owner, as
`ensure_usage_partition` does, for no role that serves anybody may detach or drop.

A function cannot DETACH CONCURRENTLY, and only the owner may detach. The plain form locks all of
usage for as long as changing the catalog takes. It waits for that lock two seconds at most, which
is also the longest that anybody can wait behind it; then the next run of the task tries again.
"""

from django.db import migrations, models

VALIDATED = [
    "ALTER TABLE usage_hour VALIDATE CONSTRAINT usage_hour_project_same_tenant",
    "ALTER TABLE usage_hour VALIDATE CONSTRAINT usage_hour_key_same_tenant",
]

ARCHIVE = """
-- A day is here from when nothing more is taken in for it.
CREATE TABLE usage_archive (
  day date PRIMARY KEY,
  closed_at timestamptz NOT NULL DEFAULT now(),
  file_name text,
  sha256 text,
  events bigint,
  cost_nano jsonb,
  checksum numeric,
  recorded_at timestamptz,
  dropped_at timestamptz,
  restored_at timestamptz,
  CONSTRAINT usage_archive_recorded_whole CHECK (
    num_nulls(file_name, sha256, events, cost_nano, checksum, recorded_at) IN (0, 6)),
  CONSTRAINT usage_archive_sha256_hex CHECK (sha256 ~ '^[0-9a-f]{64}$'),
  CONSTRAINT usage_archive_drop_after_record
    CHECK (dropped_at IS NULL OR recorded_at IS NOT NULL),
  CONSTRAINT usage_archive_restore_after_drop
    CHECK (restored_at IS NULL OR dropped_at IS NOT NULL)
);
REVOKE ALL ON usage_archive FROM meterplane_app;
REVOKE INSERT, DELETE, UPDATE ON usage_archive FROM meterplane_system;
GRANT UPDATE (file_name, sha256, events, cost_nano, checksum, recorded_at) ON usage_archive
  TO meterplane_system;
"""

# As in 0001, and no day comes back that was closed: it would be counted twice.
ENSURE = """
CREATE OR REPLACE FUNCTION ensure_usage_partition(day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $body$
DECLARE
  name text := 'usage_event_' || to_char(day, 'YYYYMMDD');
BEGIN
  IF day < DATE '2020-01-01' OR day > current_date + 400 THEN
    RAISE EXCEPTION 'no usage is from %', day USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('usage_partition', 0));
  IF EXISTS (SELECT FROM usage_archive a WHERE a.day = ensure_usage_partition.day) THEN
    RAISE EXCEPTION 'usage of % was archived', day
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  -- Asked of the catalog itself: to_regclass may answer from a cache older than the lock.
  IF EXISTS (SELECT FROM pg_class WHERE relname = name
             AND relnamespace = 'public'::regnamespace) THEN
    RETURN;
  END IF;
  PERFORM attach_usage_partition(day);
END $body$;
"""

ATTACH = """
CREATE OR REPLACE FUNCTION attach_usage_partition(day date) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $body$
DECLARE
  name text := 'usage_event_' || to_char(day, 'YYYYMMDD');
BEGIN
  EXECUTE format('CREATE TABLE %I (LIKE usage_event INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
                 name);
  -- Reached through usage_event and its policy only, never directly.
  EXECUTE format('REVOKE ALL ON %I FROM meterplane_app, meterplane_system', name);
  EXECUTE format('ALTER TABLE usage_event ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                 name, day, day + 1);
END $body$;
REVOKE EXECUTE ON FUNCTION attach_usage_partition
  FROM PUBLIC, meterplane_app, meterplane_system;
"""

# The constraint waits for who is inserting and refuses whoever comes later, whatever it believed
# before: no row can be in the table and not in the file.
CLOSE = """
CREATE FUNCTION close_usage_day(day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '2s'
AS $body$
BEGIN
  IF day >= current_date THEN
    RAISE EXCEPTION 'usage of % is still to come', day
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('usage_partition', 0));
  INSERT INTO usage_archive (day) VALUES (close_usage_day.day) ON CONFLICT DO NOTHING;
  IF FOUND THEN
    EXECUTE format('ALTER TABLE %I ADD CONSTRAINT usage_day_closed CHECK (false) NOT VALID',
                   'usage_event_' || to_char(day, 'YYYYMMDD'));
  END IF;
END $body$;
REVOKE EXECUTE ON FUNCTION close_usage_day FROM PUBLIC, meterplane_app;
"""

DROP = """
CREATE FUNCTION drop_usage_day(day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '2s'
AS $body$
DECLARE
  name text := 'usage_event_' || to_char(day, 'YYYYMMDD');
  recorded bigint;
  found bigint;
BEGIN
  SELECT a.events INTO recorded FROM usage_archive a
   WHERE a.day = drop_usage_day.day AND a.recorded_at IS NOT NULL FOR UPDATE;
  IF recorded IS NULL THEN
    RAISE EXCEPTION 'usage of % is in no file', day
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  IF EXISTS (SELECT FROM pg_class WHERE relname = name
             AND relnamespace = 'public'::regnamespace) THEN
    EXECUTE format('SELECT count(*) FROM %I', name) INTO found;
    IF found <> recorded THEN
      RAISE EXCEPTION 'usage of %: % events, and % in its file', day, found, recorded
        USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    EXECUTE format('ALTER TABLE usage_event DETACH PARTITION %I', name);
    EXECUTE format('DROP TABLE %I', name);
  END IF;
  UPDATE usage_archive a SET dropped_at = now(), restored_at = NULL
   WHERE a.day = drop_usage_day.day;
END $body$;
REVOKE EXECUTE ON FUNCTION drop_usage_day FROM PUBLIC, meterplane_app;
"""

# Between the two the caller copies the events in; all in one transaction.
RESTORE = """
CREATE FUNCTION restore_usage_day(day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '2s'
AS $body$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('usage_partition', 0));
  UPDATE usage_archive a SET restored_at = now()
   WHERE a.day = restore_usage_day.day AND a.dropped_at IS NOT NULL AND a.restored_at IS NULL;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'usage of % is not away', day
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  PERFORM attach_usage_partition(day);
END $body$;
CREATE FUNCTION close_restored_usage_day(day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $body$
DECLARE
  name text := 'usage_event_' || to_char(day, 'YYYYMMDD');
  recorded bigint;
  found bigint;
BEGIN
  SELECT a.events INTO STRICT recorded FROM usage_archive a
   WHERE a.day = close_restored_usage_day.day AND a.restored_at IS NOT NULL;
  EXECUTE format('SELECT count(*) FROM %I', name) INTO found;
  IF found <> recorded THEN
    RAISE EXCEPTION 'usage of %: % events, and % were recorded', day, found, recorded
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  EXECUTE format('ALTER TABLE %I ADD CONSTRAINT usage_day_closed CHECK (false) NOT VALID', name);
END $body$;
REVOKE EXECUTE ON FUNCTION restore_usage_day, close_restored_usage_day
  FROM PUBLIC, meterplane_app;
"""

# Ingest adds to hours and days in one statement, so whoever waits for this lock has told neither
# of them, and whoever does not has told both.
REBUILD = """
CREATE FUNCTION rebuild_usage_days(first_day date, last_day date) RETURNS bigint
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
  INSERT INTO usage_day
  SELECT tenant_id, (hour AT TIME ZONE 'UTC')::date, project_id, key_id, model, surface, status,
         price_version_id, currency, service_tier, deployment, sum(events), sum(requests),
         sum(tokens_in), sum(tokens_out), sum(rows), sum(bytes_in), sum(bytes_out),
         sum(cost_nano), sum(total_ms_sum), sum(tensor_bytes_in), sum(tensor_bytes_out),
         sum(compute_us_sum), sum(first_byte_ms_sum)
    FROM usage_hour WHERE hour >= starts AND hour < ends
   GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11;
  GET DIAGNOSTICS made = ROW_COUNT;
  RETURN made;
END $body$;
REVOKE EXECUTE ON FUNCTION rebuild_usage_days FROM PUBLIC, meterplane_app;
"""

ENSURE_BACK = """
CREATE OR REPLACE FUNCTION ensure_usage_partition(day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $body$
DECLARE
  name text := 'usage_event_' || to_char(day, 'YYYYMMDD');
BEGIN
  IF day < DATE '2020-01-01' OR day > current_date + 400 THEN
    RAISE EXCEPTION 'no usage is from %', day USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('usage_partition', 0));
  IF NOT EXISTS (SELECT FROM pg_class WHERE relname = name
                 AND relnamespace = 'public'::regnamespace) THEN
    PERFORM attach_usage_partition(day);
  END IF;
END $body$;
"""
UNDO = """
DROP FUNCTION close_usage_day(date), drop_usage_day(date), restore_usage_day(date),
  close_restored_usage_day(date), rebuild_usage_days(date, date);
DROP TABLE usage_archive;
"""


class Migration(migrations.Migration):
    dependencies = [("metering", "0013_ingest_speed")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RunSQL(VALIDATED, migrations.RunSQL.noop),
        # The way back leaves attach_usage_partition: what is put back in its place needs it.
        migrations.RunSQL(ARCHIVE + CLOSE + DROP + RESTORE + REBUILD, UNDO),
        migrations.RunSQL(ATTACH, migrations.RunSQL.noop),
        migrations.RunSQL(ENSURE, ENSURE_BACK),
        # The table exists; Django only learns its name.
        migrations.CreateModel(
            name='UsageArchive',
            fields=[
                ('day', models.DateField(primary_key=True, serialize=False)),
                ('closed_at', models.DateTimeField()),
                ('file_name', models.TextField(null=True)),
                ('sha256', models.TextField(help_text='of the file', null=True)),
                ('events', models.BigIntegerField(null=True)),
                ('cost_nano', models.JSONField(help_text='by currency', null=True)),
                ('checksum', models.DecimalField(decimal_places=0, help_text='of ids and costs, in any order', max_digits=40, null=True)),
                ('recorded_at', models.DateTimeField(null=True)),
                ('dropped_at', models.DateTimeField(null=True)),
                ('restored_at', models.DateTimeField(null=True)),
            ],
            options={
                'db_table': 'usage_archive',
                'managed': False,
            },
        ),
    ]
