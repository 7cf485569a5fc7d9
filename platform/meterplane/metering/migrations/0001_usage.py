"""Usage events by day, hourly roll-ups, and the record of what was taken in."""

from django.db import migrations

TABLES = """
SET lock_timeout = '5s';

CREATE TABLE usage_event (
  tenant_id uuid NOT NULL REFERENCES organisation (id),
  event_day date NOT NULL,
  request_id uuid NOT NULL,
  event_at timestamptz NOT NULL,
  project_id uuid NOT NULL,
  key_id uuid NOT NULL,
  model text NOT NULL,
  surface text NOT NULL,
  stream boolean NOT NULL,
  status text NOT NULL,
  http_status integer NOT NULL,
  tokens_in bigint NOT NULL,
  tokens_out bigint NOT NULL,
  requests integer NOT NULL,
  rows bigint NOT NULL,
  bytes_in bigint NOT NULL,
  bytes_out bigint NOT NULL,
  provenance text NOT NULL,
  currency text NOT NULL,
  price_version_id uuid NOT NULL,
  cost_nano bigint NOT NULL,
  reserved_nano bigint NOT NULL,
  settled_at timestamptz NOT NULL,
  first_byte_ms bigint NOT NULL,
  total_ms bigint NOT NULL,
  server text NOT NULL,
  segment_id uuid NOT NULL,
  ingested_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, event_day, request_id),
  CONSTRAINT usage_event_project_same_tenant
    FOREIGN KEY (tenant_id, project_id) REFERENCES project (tenant_id, id),
  CONSTRAINT usage_event_key_same_tenant
    FOREIGN KEY (tenant_id, key_id) REFERENCES api_key (tenant_id, id),
  CONSTRAINT usage_event_day_is_utc CHECK (event_day = (event_at AT TIME ZONE 'UTC')::date),
  CONSTRAINT usage_event_status_known
    CHECK (status IN ('ok', 'error', 'cancelled', 'interrupted')),
  CONSTRAINT usage_event_counts_not_negative CHECK (
    tokens_in >= 0 AND tokens_out >= 0 AND requests >= 0 AND rows >= 0 AND bytes_in >= 0
    AND bytes_out >= 0 AND cost_nano >= 0 AND reserved_nano >= 0),
  CONSTRAINT usage_event_cost_within_reservation CHECK (cost_nano <= reserved_nano)
) PARTITION BY RANGE (event_day);
-- Serves usage_between's edges and the request list of a period.
CREATE INDEX usage_event_tenant_at ON usage_event (tenant_id, event_at);

CREATE TABLE usage_hour (
  tenant_id uuid NOT NULL REFERENCES organisation (id),
  hour timestamptz NOT NULL,
  project_id uuid NOT NULL,
  key_id uuid NOT NULL,
  model text NOT NULL,
  surface text NOT NULL,
  status text NOT NULL,
  price_version_id uuid NOT NULL,
  currency text NOT NULL,
  events bigint NOT NULL,
  requests bigint NOT NULL,
  tokens_in bigint NOT NULL,
  tokens_out bigint NOT NULL,
  rows bigint NOT NULL,
  bytes_in bigint NOT NULL,
  bytes_out bigint NOT NULL,
  cost_nano bigint NOT NULL,
  total_ms_sum bigint NOT NULL,
  PRIMARY KEY (tenant_id, hour, project_id, key_id, model, surface, status, price_version_id),
  CONSTRAINT usage_hour_is_whole CHECK (hour = date_trunc('hour', hour, 'UTC')),
  CONSTRAINT usage_hour_sums_not_negative CHECK (
    events > 0 AND requests >= 0 AND tokens_in >= 0 AND tokens_out >= 0 AND cost_nano >= 0)
);

CREATE TABLE journal_segment (
  segment_id uuid PRIMARY KEY,
  gateway text NOT NULL,
  events integer NOT NULL,
  inserted integer NOT NULL DEFAULT 0,
  ingested_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT journal_segment_inserted_at_most CHECK (0 <= inserted AND inserted <= events)
);

CREATE TABLE usage_quarantine (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  segment_id uuid NOT NULL,
  reason text NOT NULL,
  payload bytea NOT NULL,
  quarantined_at timestamptz NOT NULL DEFAULT now()
);

SELECT meterplane_isolate('usage_event');
SELECT meterplane_isolate('usage_hour');
-- These belong to no tenant: only the system's door reaches them.
REVOKE ALL ON journal_segment, usage_quarantine FROM meterplane_app;
-- Events and sums are added, never changed by the app and never removed.
REVOKE UPDATE, DELETE ON usage_event FROM meterplane_app, meterplane_system;
REVOKE INSERT ON usage_event FROM meterplane_app;
REVOKE INSERT, UPDATE, DELETE ON usage_hour FROM meterplane_app;
REVOKE DELETE ON usage_hour FROM meterplane_system;
"""

# A partition is made beside the table and then attached: CREATE ... PARTITION OF would stop every
# reader and writer of the whole table. Runs as the owner, so that ingest of a late day can call it.
PARTITIONS = """
CREATE FUNCTION ensure_usage_partition(day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $body$
DECLARE
  name text := 'usage_event_' || to_char(day, 'YYYYMMDD');
BEGIN
  IF day < DATE '2020-01-01' OR day > current_date + 400 THEN
    RAISE EXCEPTION 'no usage is from %', day USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('usage_partition', 0));
  -- Asked of the catalog itself: to_regclass may answer from a cache older than the lock.
  IF EXISTS (SELECT FROM pg_class WHERE relname = name
             AND relnamespace = 'public'::regnamespace) THEN
    RETURN;
  END IF;
  EXECUTE format('CREATE TABLE %I (LIKE usage_event INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
                 name);
  -- Reached through usage_event and its policy only, never directly.
  EXECUTE format('REVOKE ALL ON %I FROM meterplane_app, meterplane_system', name);
  EXECUTE format('ALTER TABLE usage_event ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                 name, day, day + 1);
END $body$;
"""


class Migration(migrations.Migration):
    initial = True
    dependencies = [("tenants", "0001_initial")]
    operations = [
        migrations.RunSQL(
            TABLES, "DROP TABLE usage_event, usage_hour, journal_segment, usage_quarantine"
        ),
        migrations.RunSQL(PARTITIONS, "DROP FUNCTION ensure_usage_partition(date)"),
    ]
