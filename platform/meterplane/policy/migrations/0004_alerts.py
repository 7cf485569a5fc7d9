"""What somebody is to be told of a limit, once per window; whose limits were looked at, and when."""

import django.db.models.deletion
import meterplane.kernel.clock
import meterplane.kernel.ids
from django.db import migrations, models

ISOLATED = """
SELECT meterplane_isolate('alert');
SELECT meterplane_isolate('alert_look');
SELECT meterplane_isolate('hit_sweep');
-- The system's sweeps write them: who serves a tenant's pages reads alerts.
REVOKE INSERT, UPDATE, DELETE ON alert, alert_look, hit_sweep FROM meterplane_app;
REVOKE DELETE ON alert FROM meterplane_system;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('policy', '0003_budget_grants'),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.CreateModel(
            name='AlertLook',
            fields=[
                ('tenant', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='+', serialize=False, to='tenants.organisation')),
                ('revision', models.BigIntegerField(default=0)),
                ('version', models.BigIntegerField(default=0)),
                ('looked_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
            ],
            options={
                'db_table': 'alert_look',
            },
        ),
        migrations.CreateModel(
            name='Alert',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('level', models.CharField(max_length=16)),
                ('scope_id', models.UUIDField()),
                ('model', models.TextField(blank=True, default='')),
                ('kind', models.CharField(max_length=16)),
                ('window', models.CharField(max_length=16)),
                ('mode', models.CharField(max_length=8)),
                ('label', models.CharField(max_length=40)),
                ('threshold', models.CharField(choices=[('50', '50 % used'), ('80', '80 % used'), ('100', '100 % used'), ('hit', 'Limit hit'), ('balance', 'Balance low')], max_length=8)),
                ('used', models.BigIntegerField(null=True)),
                ('amount', models.BigIntegerField(null=True)),
                ('hits', models.BigIntegerField(default=0)),
                ('raised_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('delivered_at', models.DateTimeField(blank=True, null=True)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'alert',
                'ordering': ['-id'],
                'indexes': [models.Index(fields=['tenant', 'label'], name='alert_label'), models.Index(condition=models.Q(('delivered_at__isnull', True)), fields=['id'], name='alert_undelivered')],
                'constraints': [models.UniqueConstraint(fields=('tenant', 'level', 'scope_id', 'model', 'kind', 'window', 'label', 'threshold'), name='alert_once_per_window'), models.CheckConstraint(condition=models.Q(('threshold__in', ['50', '80', '100', 'hit', 'balance'])), name='alert_threshold_known'), models.CheckConstraint(condition=models.Q(('hits__gte', 0)), name='alert_hits_not_negative')],
            },
        ),
        migrations.CreateModel(
            name='HitSweep',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('counted_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'hit_sweep',
                'indexes': [models.Index(fields=['counted_at'], name='hit_sweep_counted_at')],
            },
        ),
        migrations.RunSQL(ISOLATED, migrations.RunSQL.noop),
    ]
