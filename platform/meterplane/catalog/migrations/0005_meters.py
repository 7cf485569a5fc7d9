"""Meters: what is counted, in versions that never change."""

import django.db.models.deletion
import meterplane.kernel.clock
import meterplane.kernel.ids
from django.db import migrations, models

# A number that was rated by a version can be told again from it for as long as there is an invoice.
GUARD = """
REVOKE UPDATE, DELETE ON meter, meter_version FROM meterplane_app, meterplane_system;
CREATE FUNCTION meter_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  RAISE EXCEPTION 'a version of a meter never changes: make another from an instant on'
    USING ERRCODE = 'restrict_violation';
END $body$;
CREATE TRIGGER meter_guard BEFORE UPDATE OR DELETE ON meter
  FOR EACH ROW EXECUTE FUNCTION meter_guard();
CREATE TRIGGER meter_guard BEFORE UPDATE OR DELETE ON meter_version
  FOR EACH ROW EXECUTE FUNCTION meter_guard();
"""

UNDO = """
DROP TRIGGER meter_guard ON meter_version;
DROP TRIGGER meter_guard ON meter;
DROP FUNCTION meter_guard();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('catalog', '0004_queues'),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.CreateModel(
            name='Meter',
            fields=[
                ('slug', models.CharField(max_length=64, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
            ],
            options={
                'db_table': 'meter',
                'ordering': ['slug'],
            },
        ),
        migrations.CreateModel(
            name='MeterVersion',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('number', models.PositiveIntegerField()),
                ('effective_from', models.DateTimeField()),
                ('definition', models.JSONField()),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('created_by', models.CharField(max_length=120)),
                ('meter', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='versions', to='catalog.meter')),
            ],
            options={
                'db_table': 'meter_version',
                'ordering': ['meter', 'number'],
            },
        ),
        migrations.AddConstraint(
            model_name='meter',
            constraint=models.CheckConstraint(condition=models.Q(('slug__regex', '^[a-z][a-z0-9_-]{0,63}$')), name='meter_slug_safe'),
        ),
        migrations.AddConstraint(
            model_name='meterversion',
            constraint=models.UniqueConstraint(fields=('meter', 'number'), name='meter_version_once'),
        ),
        migrations.AddConstraint(
            model_name='meterversion',
            constraint=models.UniqueConstraint(fields=('meter', 'effective_from'), name='meter_version_instant_once'),
        ),
        migrations.RunSQL(GUARD, UNDO),
    ]
