"""What reconciliation compares, and its verdicts; what the canary saw.

Expands only. The BRIN indexes are a few pages each, and read a table once while they are made:
nothing is taken in meanwhile, journals wait on their disks.
"""

from django.contrib.postgres.fields import ArrayField
from django.db import migrations, models

import meterplane.kernel.clock
import meterplane.kernel.ids

# What Triton says of itself, as it was read at `at`.
COUNTERS = """
CREATE TABLE triton_counter (
  server text NOT NULL,
  at timestamptz NOT NULL,
  model text NOT NULL,
  version text NOT NULL,
  success bigint NOT NULL,
  failure bigint NOT NULL,
  count bigint NOT NULL,
  exec_count bigint NOT NULL,
  PRIMARY KEY (server, at, model, version),
  CONSTRAINT triton_counter_not_negative CHECK (
    success >= 0 AND failure >= 0 AND count >= 0 AND exec_count >= 0)
);
"""

# The manifests of segments by the hour their requests came in: moved here from `journal_segment`.
MANIFESTS = """
CREATE TABLE journal_manifest (
  segment_id uuid NOT NULL REFERENCES journal_segment (segment_id) ON DELETE CASCADE,
  hour timestamptz NOT NULL,
  model text NOT NULL,
  server text NOT NULL,
  ids uuid[] NOT NULL,
  PRIMARY KEY (segment_id, hour, model, server),
  CONSTRAINT journal_manifest_hour_is_whole CHECK (hour = date_trunc('hour', hour, 'UTC')),
  CONSTRAINT journal_manifest_not_empty CHECK (cardinality(ids) > 0)
);
CREATE INDEX journal_manifest_hour ON journal_manifest (hour);
-- The next manifests to move; almost always empty.
CREATE INDEX journal_segment_manifest ON journal_segment (ingested_at) WHERE manifest IS NOT NULL;
"""

VERDICTS = """
CREATE TABLE reconciliation_hour (
  hour timestamptz PRIMARY KEY,
  due_at timestamptz,
  reconciled_at timestamptz,
  CONSTRAINT reconciliation_hour_is_whole CHECK (hour = date_trunc('hour', hour, 'UTC'))
);
CREATE INDEX reconciliation_hour_due ON reconciliation_hour (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE reconciliation (
  hour timestamptz NOT NULL REFERENCES reconciliation_hour (hour),
  model text NOT NULL,
  server text NOT NULL,
  journal bigint NOT NULL,
  events bigint NOT NULL,
  rolled_up bigint,
  triton_low bigint,
  triton_high bigint,
  triton bigint,
  missing uuid[] NOT NULL DEFAULT '{}',
  missing_count bigint NOT NULL DEFAULT 0,
  extra uuid[] NOT NULL DEFAULT '{}',
  extra_count bigint NOT NULL DEFAULT 0,
  verdict text NOT NULL,
  reason text NOT NULL,
  at timestamptz NOT NULL,
  PRIMARY KEY (hour, model, server),
  CONSTRAINT reconciliation_verdict_known CHECK (verdict IN ('pass', 'fail', 'open')),
  CONSTRAINT reconciliation_ids_bounded CHECK (
    cardinality(missing) <= least(missing_count, 100)
    AND cardinality(extra) <= least(extra_count, 100)),
  CONSTRAINT reconciliation_pass_has_no_difference CHECK (
    verdict <> 'pass' OR (
      reason = '' AND missing_count = 0 AND extra_count = 0 AND journal = events
      AND (triton IS NULL OR triton BETWEEN triton_low AND triton_high)))
);
CREATE INDEX reconciliation_verdict ON reconciliation (hour) WHERE verdict <> 'pass';
"""

CANARY = """
CREATE TABLE canary_run (
  id uuid PRIMARY KEY,
  started_at timestamptz NOT NULL,
  finished_at timestamptz,
  passed boolean,
  steps jsonb NOT NULL DEFAULT '[]',
  visible_after_ms bigint,
  CONSTRAINT canary_run_ended_with_a_verdict CHECK ((finished_at IS NULL) = (passed IS NULL)),
  CONSTRAINT canary_run_steps_array CHECK (jsonb_typeof(steps) = 'array')
);
CREATE INDEX canary_run_started ON canary_run (started_at);
CREATE UNIQUE INDEX canary_run_one_at_a_time ON canary_run ((finished_at IS NULL))
  WHERE finished_at IS NULL;
"""

INDEXES = """
CREATE INDEX usage_event_times ON usage_event USING brin (event_at, settled_at)
  WITH (autosummarize = on);
CREATE INDEX usage_hour_hour ON usage_hour USING brin (hour) WITH (autosummarize = on);
CREATE INDEX usage_tag_hour_hour ON usage_tag_hour USING brin (hour) WITH (autosummarize = on);
CREATE INDEX usage_day_day ON usage_day USING brin (day) WITH (autosummarize = on);
"""

# These belong to no tenant: only the system's door reaches them.
RIGHTS = """
REVOKE ALL ON triton_counter, journal_manifest, reconciliation_hour, reconciliation, canary_run
  FROM meterplane_app;
REVOKE UPDATE ON triton_counter, journal_manifest FROM meterplane_system;
"""

UNDO = """
DROP INDEX usage_event_times, usage_hour_hour, usage_tag_hour_hour, usage_day_day;
DROP TABLE canary_run, reconciliation, reconciliation_hour, journal_manifest, triton_counter;
DROP INDEX journal_segment_manifest;
"""


class Migration(migrations.Migration):
    dependencies = [("metering", "0010_external_events")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RunSQL(COUNTERS + MANIFESTS + VERDICTS + CANARY + INDEXES + RIGHTS, UNDO),
        # The tables exist; Django only learns their names.
        migrations.CreateModel(
            name='Reconciliation',
            fields=[
                ('pk', models.CompositePrimaryKey('hour', 'model', 'server', blank=True, editable=False, primary_key=True, serialize=False)),
                ('hour', models.DateTimeField()),
                ('model', models.TextField()),
                ('server', models.TextField()),
                ('journal', models.BigIntegerField()),
                ('events', models.BigIntegerField()),
                ('rolled_up', models.BigIntegerField(null=True)),
                ('triton_low', models.BigIntegerField(null=True)),
                ('triton_high', models.BigIntegerField(null=True)),
                ('triton', models.BigIntegerField(null=True)),
                ('missing', ArrayField(models.UUIDField())),
                ('missing_count', models.BigIntegerField()),
                ('extra', ArrayField(models.UUIDField())),
                ('extra_count', models.BigIntegerField()),
                ('verdict', models.TextField()),
                ('reason', models.TextField()),
                ('at', models.DateTimeField()),
            ],
            options={
                'db_table': 'reconciliation',
                'managed': False,
            },
        ),
        migrations.CreateModel(
            name='CanaryRun',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('started_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('finished_at', models.DateTimeField(null=True)),
                ('passed', models.BooleanField(null=True)),
                ('steps', models.JSONField(default=list)),
                ('visible_after_ms', models.BigIntegerField(null=True)),
            ],
            options={
                'db_table': 'canary_run',
                'managed': False,
            },
        ),
    ]
