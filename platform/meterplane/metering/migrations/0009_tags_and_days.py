"""An event says for whom it was; sums are kept by day and by tag, too; a segment says what it held.

Expands only: constant defaults, no row is rewritten. Nothing is taken in while the days are summed
up. A worker that still runs the code before this one adds to hours and not to days afterwards:
`manage.py rebuild_usage_days` once the last of them is gone; reconciliation tells if it is needed.
"""

import django.db.models.deletion
from django.db import migrations, models

COLUMNS = """
ALTER TABLE usage_event ADD COLUMN tags jsonb NOT NULL DEFAULT '{}';
ALTER TABLE usage_event ADD CONSTRAINT usage_event_tags_object
  CHECK (jsonb_typeof(tags) = 'object') NOT VALID;
ALTER TABLE journal_segment ADD COLUMN manifest bytea;
"""

# Of a day what usage_hour is of an hour: any billing period of whole UTC days is a sum of these.
DAYS = """
LOCK TABLE usage_hour IN SHARE MODE;
CREATE TABLE usage_day (
  tenant_id uuid NOT NULL REFERENCES organisation (id),
  day date NOT NULL,
  project_id uuid NOT NULL,
  key_id uuid NOT NULL,
  model text NOT NULL,
  surface text NOT NULL,
  status text NOT NULL,
  price_version_id uuid NOT NULL,
  currency text NOT NULL,
  service_tier text NOT NULL,
  deployment text NOT NULL,
  events bigint NOT NULL,
  requests bigint NOT NULL,
  tokens_in bigint NOT NULL,
  tokens_out bigint NOT NULL,
  rows bigint NOT NULL,
  bytes_in bigint NOT NULL,
  bytes_out bigint NOT NULL,
  cost_nano bigint NOT NULL,
  total_ms_sum bigint NOT NULL,
  tensor_bytes_in bigint NOT NULL,
  tensor_bytes_out bigint NOT NULL,
  compute_us_sum bigint NOT NULL,
  first_byte_ms_sum bigint NOT NULL,
  PRIMARY KEY (tenant_id, day, project_id, key_id, model, surface, status, price_version_id,
               currency, service_tier, deployment),
  CONSTRAINT usage_day_sums_not_negative CHECK (
    events > 0 AND requests >= 0 AND tokens_in >= 0 AND tokens_out >= 0 AND cost_nano >= 0)
);
SELECT meterplane_isolate('usage_day');
REVOKE INSERT, UPDATE, DELETE ON usage_day FROM meterplane_app;
REVOKE DELETE ON usage_day FROM meterplane_system;
INSERT INTO usage_day
SELECT tenant_id, (hour AT TIME ZONE 'UTC')::date, project_id, key_id, model, surface, status,
       price_version_id, currency, service_tier, deployment, sum(events), sum(requests),
       sum(tokens_in), sum(tokens_out), sum(rows), sum(bytes_in), sum(bytes_out), sum(cost_nano),
       sum(total_ms_sum), sum(tensor_bytes_in), sum(tensor_bytes_out), sum(compute_us_sum),
       sum(first_byte_ms_sum)
  FROM usage_hour
 GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11;
"""

# One row for each tag of an event: sums over two tags of the same events count them twice.
TAGS = """
CREATE TABLE usage_tag_hour (
  tenant_id uuid NOT NULL REFERENCES organisation (id),
  hour timestamptz NOT NULL,
  tag text NOT NULL,
  value text NOT NULL,
  project_id uuid NOT NULL,
  key_id uuid NOT NULL,
  model text NOT NULL,
  status text NOT NULL,
  currency text NOT NULL,
  events bigint NOT NULL,
  requests bigint NOT NULL,
  tokens_in bigint NOT NULL,
  tokens_out bigint NOT NULL,
  cost_nano bigint NOT NULL,
  total_ms_sum bigint NOT NULL,
  PRIMARY KEY (tenant_id, tag, hour, value, project_id, key_id, model, status, currency),
  CONSTRAINT usage_tag_hour_is_whole CHECK (hour = date_trunc('hour', hour, 'UTC')),
  CONSTRAINT usage_tag_hour_sums_not_negative CHECK (
    events > 0 AND requests >= 0 AND tokens_in >= 0 AND tokens_out >= 0 AND cost_nano >= 0)
);
SELECT meterplane_isolate('usage_tag_hour');
REVOKE INSERT, UPDATE, DELETE ON usage_tag_hour FROM meterplane_app;
REVOKE DELETE ON usage_tag_hour FROM meterplane_system;
"""

UNDO = """
DROP TABLE usage_day, usage_tag_hour;
ALTER TABLE journal_segment DROP COLUMN manifest;
ALTER TABLE usage_event DROP COLUMN tags;
"""


class Migration(migrations.Migration):
    dependencies = [("metering", "0008_revisions")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RunSQL(COLUMNS + DAYS + TAGS, UNDO),
        # The tables exist; Django only learns their names.
        migrations.CreateModel(
            name='UsageDay',
            fields=[
                ('pk', models.CompositePrimaryKey('tenant_id', 'day', 'project_id', 'key_id', 'model', 'surface', 'status', 'price_version_id', 'currency', 'service_tier', 'deployment', blank=True, editable=False, primary_key=True, serialize=False)),
                ('day', models.DateField()),
                ('project_id', models.UUIDField()),
                ('key_id', models.UUIDField()),
                ('model', models.TextField()),
                ('surface', models.TextField()),
                ('status', models.TextField()),
                ('price_version_id', models.UUIDField()),
                ('currency', models.TextField()),
                ('service_tier', models.TextField()),
                ('deployment', models.TextField()),
                ('events', models.BigIntegerField()),
                ('requests', models.BigIntegerField()),
                ('tokens_in', models.BigIntegerField()),
                ('tokens_out', models.BigIntegerField()),
                ('rows', models.BigIntegerField()),
                ('bytes_in', models.BigIntegerField()),
                ('bytes_out', models.BigIntegerField()),
                ('cost_nano', models.BigIntegerField()),
                ('total_ms_sum', models.BigIntegerField()),
                ('tensor_bytes_in', models.BigIntegerField()),
                ('tensor_bytes_out', models.BigIntegerField()),
                ('compute_us_sum', models.BigIntegerField()),
                ('first_byte_ms_sum', models.BigIntegerField()),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'usage_day',
                'managed': False,
            },
        ),
        migrations.CreateModel(
            name='UsageTagHour',
            fields=[
                ('pk', models.CompositePrimaryKey('tenant_id', 'tag', 'hour', 'value', 'project_id', 'key_id', 'model', 'status', 'currency', blank=True, editable=False, primary_key=True, serialize=False)),
                ('hour', models.DateTimeField()),
                ('tag', models.TextField()),
                ('value', models.TextField()),
                ('project_id', models.UUIDField()),
                ('key_id', models.UUIDField()),
                ('model', models.TextField()),
                ('status', models.TextField()),
                ('currency', models.TextField()),
                ('events', models.BigIntegerField()),
                ('requests', models.BigIntegerField()),
                ('tokens_in', models.BigIntegerField()),
                ('tokens_out', models.BigIntegerField()),
                ('cost_nano', models.BigIntegerField()),
                ('total_ms_sum', models.BigIntegerField()),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'usage_tag_hour',
                'managed': False,
            },
        ),
    ]
