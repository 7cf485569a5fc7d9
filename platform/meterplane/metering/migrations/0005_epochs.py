"""What was spent in one life of the admission Redis, and up to when each journal is taken in.

Together they tell how much of a budget's grants was spent when that Redis was lost, and when
nothing more of it can turn up.

Expands only: constant defaults, no row is rewritten. A worker that still runs the code before this
one adds to no epoch; what the gateways of that code settle names none.
"""

import django.db.models.deletion
from django.db import migrations, models

# admitted_at is null for what was taken in before: its day in usage_spend is not known either.
COLUMNS = """
ALTER TABLE usage_event
  ADD COLUMN epoch text NOT NULL DEFAULT '',
  ADD COLUMN admitted_at timestamptz;
"""

TABLES = """
-- Sums of usage_event, kept by ingest in the transaction that inserts: an epoch may last for months.
CREATE TABLE usage_spend (
  tenant_id uuid NOT NULL REFERENCES organisation (id),
  epoch text NOT NULL,
  day date NOT NULL,
  project_id uuid NOT NULL,
  key_id uuid NOT NULL,
  model text NOT NULL,
  cost_nano bigint NOT NULL,
  PRIMARY KEY (tenant_id, epoch, day, project_id, key_id, model),
  CONSTRAINT usage_spend_of_an_epoch CHECK (epoch <> ''),
  CONSTRAINT usage_spend_not_negative CHECK (cost_nano >= 0)
);

CREATE TABLE journal_watermark (
  root uuid PRIMARY KEY,
  host text NOT NULL,
  drained_until timestamptz NOT NULL,
  seen_at timestamptz NOT NULL
);

SELECT meterplane_isolate('usage_spend');
REVOKE INSERT, UPDATE, DELETE ON usage_spend FROM meterplane_app;
REVOKE DELETE ON usage_spend FROM meterplane_system;
-- Belongs to no tenant: only the system's door reaches it.
REVOKE ALL ON journal_watermark FROM meterplane_app;
"""

UNDO = """
DROP TABLE usage_spend, journal_watermark;
ALTER TABLE usage_event DROP COLUMN epoch, DROP COLUMN admitted_at;
"""


class Migration(migrations.Migration):
    dependencies = [("metering", "0004_hours_by_tier_and_deployment")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RunSQL(COLUMNS + TABLES, UNDO),
        # The tables exist; Django only learns their names.
        migrations.CreateModel(
            name='UsageSpend',
            fields=[
                ('pk', models.CompositePrimaryKey('tenant_id', 'epoch', 'day', 'project_id', 'key_id', 'model', blank=True, editable=False, primary_key=True, serialize=False)),
                ('epoch', models.TextField()),
                ('day', models.DateField()),
                ('project_id', models.UUIDField()),
                ('key_id', models.UUIDField()),
                ('model', models.TextField()),
                ('cost_nano', models.BigIntegerField()),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'usage_spend',
                'managed': False,
            },
        ),
        migrations.CreateModel(
            name='JournalWatermark',
            fields=[
                ('root', models.UUIDField(primary_key=True, serialize=False)),
                ('host', models.TextField()),
                ('drained_until', models.DateTimeField()),
                ('seen_at', models.DateTimeField()),
            ],
            options={
                'db_table': 'journal_watermark',
                'managed': False,
            },
        ),
    ]
