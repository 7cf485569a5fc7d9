"""Exports that were asked for, and schedules of them."""

import meterplane.kernel.clock
import meterplane.kernel.ids
from django.db import migrations, models

EXPORTS = """
-- tenant_id is null for an export over all organisations: an operator's, which no tenant sees.
CREATE TABLE export (
  id uuid PRIMARY KEY,
  tenant_id uuid REFERENCES organisation (id),
  kind text NOT NULL,
  format text NOT NULL,
  query jsonb NOT NULL,
  state text NOT NULL DEFAULT 'queued',
  ingested_until timestamptz NOT NULL,
  place jsonb,
  days_total integer NOT NULL,
  days_done integer NOT NULL DEFAULT 0,
  rows bigint NOT NULL DEFAULT 0,
  bytes bigint NOT NULL DEFAULT 0,
  parts integer NOT NULL DEFAULT 0,
  sums jsonb NOT NULL DEFAULT '{}',
  sha256 text NOT NULL DEFAULT '',
  error text NOT NULL DEFAULT '',
  requested_by text NOT NULL,
  created_at timestamptz NOT NULL,
  worked_at timestamptz NOT NULL,
  finished_at timestamptz,
  expires_at timestamptz,
  CONSTRAINT export_kind_known CHECK (kind IN ('events', 'usage', 'focus')),
  CONSTRAINT export_format_known CHECK (format IN ('csv', 'parquet')),
  CONSTRAINT export_state_known
    CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
  CONSTRAINT export_counts CHECK (
    rows >= 0 AND bytes >= 0 AND parts >= 0 AND days_total > 0
    AND days_done BETWEEN 0 AND days_total),
  CONSTRAINT export_sha256_iff_done CHECK ((state = 'done') = (sha256 ~ '^[0-9a-f]{64}$')),
  CONSTRAINT export_error_iff_failed CHECK ((state = 'failed') = (error <> '')),
  CONSTRAINT export_finished_iff_ended
    CHECK ((state IN ('queued', 'running')) = (finished_at IS NULL)),
  CONSTRAINT export_expires_iff_ended CHECK ((finished_at IS NULL) = (expires_at IS NULL))
);
CREATE INDEX export_of_tenant ON export (tenant_id, id DESC);
CREATE INDEX export_open ON export (worked_at) WHERE state IN ('queued', 'running');
CREATE INDEX export_expiry ON export (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE export_part (
  export_id uuid NOT NULL REFERENCES export (id) ON DELETE CASCADE,
  number integer NOT NULL,
  tenant_id uuid,
  rows bigint NOT NULL,
  bytes bigint NOT NULL,
  sha256 text NOT NULL,
  PRIMARY KEY (export_id, number),
  CONSTRAINT export_part_counts CHECK (number > 0 AND rows >= 0 AND bytes >= 0),
  CONSTRAINT export_part_sha256_hex CHECK (sha256 ~ '^[0-9a-f]{64}$')
);
SELECT meterplane_isolate('export');
SELECT meterplane_isolate('export_part');
-- A part of an operator's export has no tenant, and then nothing to compare.
ALTER TABLE export_part ADD CONSTRAINT export_part_same_tenant
  FOREIGN KEY (tenant_id, export_id) REFERENCES export (tenant_id, id) ON DELETE CASCADE;

-- What was asked for does not change, and what has ended has ended.
CREATE FUNCTION export_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF OLD.state NOT IN ('queued', 'running')
     OR (NEW.id, NEW.kind, NEW.format, NEW.query, NEW.ingested_until)
        IS DISTINCT FROM (OLD.id, OLD.kind, OLD.format, OLD.query, OLD.ingested_until)
     OR NEW.tenant_id IS DISTINCT FROM OLD.tenant_id THEN
    RAISE EXCEPTION 'export % has ended, or is another', OLD.id
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER export_guard BEFORE UPDATE ON export
  FOR EACH ROW EXECUTE FUNCTION export_guard();
"""

# An operator's: whom usage is sent to is no tenant's business, and secrets are in here.
DELIVERIES = """
CREATE TABLE export_destination (
  id uuid PRIMARY KEY,
  name text NOT NULL UNIQUE,
  endpoint text NOT NULL,
  region text NOT NULL,
  bucket text NOT NULL,
  prefix text NOT NULL,
  path_style boolean NOT NULL,
  access_key_id text NOT NULL,
  secret_sealed text NOT NULL,
  secret_env text NOT NULL,
  created_at timestamptz NOT NULL,
  CONSTRAINT export_destination_one_secret CHECK ((secret_sealed = '') <> (secret_env = ''))
);
CREATE TABLE export_schedule (
  id uuid PRIMARY KEY,
  name text NOT NULL,
  destination_id uuid NOT NULL REFERENCES export_destination (id),
  tenant_id uuid REFERENCES organisation (id),
  kind text NOT NULL,
  format text NOT NULL,
  every text NOT NULL,
  filters jsonb NOT NULL,
  is_active boolean NOT NULL,
  next_period timestamptz NOT NULL,
  created_at timestamptz NOT NULL,
  UNIQUE (destination_id, name),
  CONSTRAINT export_schedule_name_in_a_key CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,39}$'),
  CONSTRAINT export_schedule_kind_known CHECK (kind IN ('events', 'usage', 'focus')),
  CONSTRAINT export_schedule_format_known CHECK (format IN ('csv', 'parquet')),
  CONSTRAINT export_schedule_every_known CHECK (every IN ('hourly', 'daily', 'monthly'))
);
CREATE TABLE export_delivery (
  schedule_id uuid NOT NULL REFERENCES export_schedule (id) ON DELETE CASCADE,
  period_start timestamptz NOT NULL,
  period_end timestamptz NOT NULL,
  state text NOT NULL DEFAULT 'waiting',
  revision integer NOT NULL DEFAULT 0,
  events_seen bigint NOT NULL DEFAULT -1,
  export_id uuid REFERENCES export (id) ON DELETE SET NULL,
  rows bigint NOT NULL DEFAULT 0,
  bytes bigint NOT NULL DEFAULT 0,
  sha256 text NOT NULL DEFAULT '',
  object_key text NOT NULL DEFAULT '',
  error text NOT NULL DEFAULT '',
  attempts integer NOT NULL DEFAULT 0,
  try_at timestamptz NOT NULL,
  delivered_at timestamptz,
  PRIMARY KEY (schedule_id, period_start),
  CONSTRAINT export_delivery_period CHECK (period_start < period_end),
  CONSTRAINT export_delivery_state_known
    CHECK (state IN ('waiting', 'exporting', 'sending', 'delivered')),
  CONSTRAINT export_delivery_counts CHECK (revision >= 0 AND rows >= 0 AND attempts >= 0),
  CONSTRAINT export_delivery_is_whole CHECK (
    state <> 'delivered'
    OR (revision > 0 AND sha256 <> '' AND object_key <> '' AND delivered_at IS NOT NULL))
);
CREATE INDEX export_delivery_open ON export_delivery (try_at) WHERE state <> 'delivered';
SELECT meterplane_isolate('export_schedule');
REVOKE ALL ON export_destination, export_schedule, export_delivery FROM meterplane_app;
"""

UNDO = """
DROP TABLE export_delivery, export_schedule, export_destination, export_part, export;
DROP FUNCTION export_guard();
"""


class Migration(migrations.Migration):
    dependencies = [("metering", "0011_reconciliation")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RunSQL(EXPORTS + DELIVERIES, UNDO),
        # The tables exist; Django only learns their names.
        migrations.CreateModel(
            name='Export',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('kind', models.TextField()),
                ('format', models.TextField()),
                ('query', models.JSONField()),
                ('state', models.TextField(choices=[('queued', 'Queued'), ('running', 'Running'), ('done', 'Done'), ('failed', 'Failed'), ('cancelled', 'Cancelled')], default='queued')),
                ('ingested_until', models.DateTimeField()),
                ('place', models.JSONField(null=True)),
                ('days_total', models.IntegerField()),
                ('days_done', models.IntegerField(default=0)),
                ('rows', models.BigIntegerField(default=0)),
                ('bytes', models.BigIntegerField(default=0)),
                ('parts', models.IntegerField(default=0)),
                ('sums', models.JSONField(default=dict)),
                ('sha256', models.TextField(default='')),
                ('error', models.TextField(default='')),
                ('requested_by', models.TextField()),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('worked_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('finished_at', models.DateTimeField(null=True)),
                ('expires_at', models.DateTimeField(null=True)),
            ],
            options={
                'db_table': 'export',
                'managed': False,
            },
        ),
        migrations.CreateModel(
            name='ExportDelivery',
            fields=[
                ('pk', models.CompositePrimaryKey('schedule_id', 'period_start', blank=True, editable=False, primary_key=True, serialize=False)),
                ('period_start', models.DateTimeField()),
                ('period_end', models.DateTimeField()),
                ('state', models.TextField(choices=[('waiting', 'Waiting'), ('exporting', 'Exporting'), ('sending', 'Sending'), ('delivered', 'Delivered')], default='waiting')),
                ('revision', models.IntegerField(default=0)),
                ('events_seen', models.BigIntegerField(default=-1)),
                ('rows', models.BigIntegerField(default=0)),
                ('bytes', models.BigIntegerField(default=0)),
                ('sha256', models.TextField(default='')),
                ('object_key', models.TextField(default='')),
                ('error', models.TextField(default='')),
                ('attempts', models.IntegerField(default=0)),
                ('try_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('delivered_at', models.DateTimeField(null=True)),
            ],
            options={
                'db_table': 'export_delivery',
                'managed': False,
            },
        ),
        migrations.CreateModel(
            name='ExportDestination',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('name', models.TextField(unique=True)),
                ('endpoint', models.TextField(blank=True)),
                ('region', models.TextField()),
                ('bucket', models.TextField()),
                ('prefix', models.TextField(blank=True)),
                ('path_style', models.BooleanField(default=True)),
                ('access_key_id', models.TextField()),
                ('secret_sealed', models.TextField(blank=True, default='')),
                ('secret_env', models.TextField(blank=True, default='')),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
            ],
            options={
                'db_table': 'export_destination',
                'managed': False,
            },
        ),
        migrations.CreateModel(
            name='ExportPart',
            fields=[
                ('pk', models.CompositePrimaryKey('export_id', 'number', blank=True, editable=False, primary_key=True, serialize=False)),
                ('number', models.IntegerField()),
                ('rows', models.BigIntegerField()),
                ('bytes', models.BigIntegerField()),
                ('sha256', models.TextField()),
            ],
            options={
                'db_table': 'export_part',
                'managed': False,
            },
        ),
        migrations.CreateModel(
            name='ExportSchedule',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('name', models.TextField()),
                ('kind', models.TextField()),
                ('format', models.TextField()),
                ('every', models.TextField(choices=[('hourly', 'Hourly'), ('daily', 'Daily'), ('monthly', 'Monthly')])),
                ('filters', models.JSONField(blank=True, default=dict)),
                ('is_active', models.BooleanField(default=True)),
                ('next_period', models.DateTimeField()),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
            ],
            options={
                'db_table': 'export_schedule',
                'managed': False,
            },
        ),
    ]
