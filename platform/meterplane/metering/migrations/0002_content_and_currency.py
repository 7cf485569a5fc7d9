"""What a segment held is kept as a digest; sums never mix currencies; Django is told of the tables.
"""

from django.db import migrations, models

# A segment that comes back under the same id with other bytes must be noticed, not passed over.
# '' stands for segments taken in before the digest was kept.
DIGEST = """
ALTER TABLE journal_segment ADD COLUMN sha256 text NOT NULL DEFAULT '';
ALTER TABLE journal_segment ADD CONSTRAINT journal_segment_sha256_hex
  CHECK (sha256 ~ '^([0-9a-f]{64})?$');
"""

CURRENCY = """
ALTER TABLE usage_hour DROP CONSTRAINT usage_hour_pkey;
ALTER TABLE usage_hour ADD CONSTRAINT usage_hour_pkey PRIMARY KEY
  (tenant_id, hour, project_id, key_id, model, surface, status, price_version_id, currency);
ALTER TABLE usage_hour ADD CONSTRAINT usage_hour_currency_iso CHECK (currency ~ '^[A-Z]{3}$');
"""

# A function that runs as its owner must not find a table in its caller's temporary schema, which
# PostgreSQL searches first unless it is named last.
SEARCH_PATH = "ALTER FUNCTION ensure_usage_partition(date) SET search_path = public, pg_temp"


class Migration(migrations.Migration):
    dependencies = [("metering", "0001_usage")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RunSQL(DIGEST, "ALTER TABLE journal_segment DROP COLUMN sha256"),
        migrations.RunSQL(CURRENCY, migrations.RunSQL.noop),
        migrations.RunSQL(SEARCH_PATH, migrations.RunSQL.noop),
        # The tables exist; Django only learns their names.
        migrations.CreateModel(
            name='JournalSegment',
            fields=[
                ('segment_id', models.UUIDField(primary_key=True, serialize=False)),
                ('gateway', models.TextField()),
                ('sha256', models.TextField(help_text='of its bytes; empty if taken in before this was kept')),
                ('events', models.IntegerField()),
                ('inserted', models.IntegerField()),
                ('ingested_at', models.DateTimeField()),
            ],
            options={
                'db_table': 'journal_segment',
                'managed': False,
            },
        ),
        migrations.CreateModel(
            name='UsageEvent',
            fields=[
                ('pk', models.CompositePrimaryKey('tenant_id', 'event_day', 'request_id', blank=True, editable=False, primary_key=True, serialize=False)),
                ('event_day', models.DateField()),
                ('request_id', models.UUIDField()),
                ('event_at', models.DateTimeField()),
                ('project_id', models.UUIDField()),
                ('key_id', models.UUIDField()),
                ('model', models.TextField()),
                ('surface', models.TextField()),
                ('stream', models.BooleanField()),
                ('status', models.TextField()),
                ('http_status', models.IntegerField()),
                ('tokens_in', models.BigIntegerField()),
                ('tokens_out', models.BigIntegerField()),
                ('requests', models.IntegerField()),
                ('rows', models.BigIntegerField()),
                ('bytes_in', models.BigIntegerField()),
                ('bytes_out', models.BigIntegerField()),
                ('provenance', models.TextField()),
                ('currency', models.TextField()),
                ('price_version_id', models.UUIDField()),
                ('cost_nano', models.BigIntegerField()),
                ('reserved_nano', models.BigIntegerField()),
                ('settled_at', models.DateTimeField()),
                ('first_byte_ms', models.BigIntegerField()),
                ('total_ms', models.BigIntegerField()),
                ('server', models.TextField()),
                ('segment_id', models.UUIDField()),
                ('ingested_at', models.DateTimeField()),
            ],
            options={
                'db_table': 'usage_event',
                'managed': False,
            },
        ),
        migrations.CreateModel(
            name='UsageHour',
            fields=[
                ('pk', models.CompositePrimaryKey('tenant_id', 'hour', 'project_id', 'key_id', 'model', 'surface', 'status', 'price_version_id', 'currency', blank=True, editable=False, primary_key=True, serialize=False)),
                ('hour', models.DateTimeField()),
                ('project_id', models.UUIDField()),
                ('key_id', models.UUIDField()),
                ('model', models.TextField()),
                ('surface', models.TextField()),
                ('status', models.TextField()),
                ('price_version_id', models.UUIDField()),
                ('currency', models.TextField()),
                ('events', models.BigIntegerField()),
                ('requests', models.BigIntegerField()),
                ('tokens_in', models.BigIntegerField()),
                ('tokens_out', models.BigIntegerField()),
                ('rows', models.BigIntegerField()),
                ('bytes_in', models.BigIntegerField()),
                ('bytes_out', models.BigIntegerField()),
                ('cost_nano', models.BigIntegerField()),
                ('total_ms_sum', models.BigIntegerField()),
            ],
            options={
                'db_table': 'usage_hour',
                'managed': False,
            },
        ),
        migrations.CreateModel(
            name='UsageQuarantine',
            fields=[
                ('id', models.UUIDField(primary_key=True, serialize=False)),
                ('segment_id', models.UUIDField()),
                ('reason', models.TextField()),
                ('payload', models.BinaryField()),
                ('quarantined_at', models.DateTimeField()),
            ],
            options={
                'db_table': 'usage_quarantine',
                'managed': False,
            },
        ),
    ]
