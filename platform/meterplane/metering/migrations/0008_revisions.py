"""Whose usage has grown since somebody last looked, without reading the usage.

Expands only. A worker that still runs the code before this one adds usage and raises no revision:
what that usage reached is told of with the next.
"""

import django.db.models.deletion
from django.db import migrations, models

TABLE = """
CREATE TABLE usage_revision (
  tenant_id uuid PRIMARY KEY REFERENCES organisation (id),
  revision bigint NOT NULL,
  CONSTRAINT usage_revision_rises CHECK (revision > 0)
);
SELECT meterplane_isolate('usage_revision');
REVOKE INSERT, UPDATE, DELETE ON usage_revision FROM meterplane_app;
REVOKE DELETE ON usage_revision FROM meterplane_system;
INSERT INTO usage_revision SELECT DISTINCT tenant_id, 1 FROM usage_hour;
"""


class Migration(migrations.Migration):
    dependencies = [("metering", "0007_used_on")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RunSQL(TABLE, "DROP TABLE usage_revision"),
        # The table exists; Django only learns its name.
        migrations.CreateModel(
            name='UsageRevision',
            fields=[
                ('tenant', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='+', serialize=False, to='tenants.organisation')),
                ('revision', models.BigIntegerField()),
            ],
            options={
                'db_table': 'usage_revision',
                'managed': False,
            },
        ),
    ]
