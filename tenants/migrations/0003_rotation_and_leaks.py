"""A key names the one whose place it takes; a leaked key has a report for its owner.

The column is new and empty, so that its constraints look at nothing.
"""

import django.db.models.deletion
import meterplane.kernel.clock
import meterplane.kernel.ids
from django.conf import settings
from django.db import migrations, models


ISOLATED = """
SELECT meterplane_isolate('leak_report');
ALTER TABLE leak_report ADD CONSTRAINT leak_report_key_same_tenant
  FOREIGN KEY (tenant_id, key_id) REFERENCES api_key (tenant_id, id);
ALTER TABLE api_key ADD CONSTRAINT api_key_replaces_same_tenant
  FOREIGN KEY (tenant_id, replaces_id) REFERENCES api_key (tenant_id, id);
"""


class Migration(migrations.Migration):

    dependencies = [
        ('tenants', '0002_limits'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.AddField(
            model_name='apikey',
            name='replaces',
            field=models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='replaced_by', to='tenants.apikey'),
        ),
        migrations.CreateModel(
            name='LeakReport',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('found_url', models.CharField(blank=True, default='', max_length=500)),
                ('reported_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('dismissed_at', models.DateTimeField(blank=True, null=True)),
                ('dismissed_by', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('key', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.apikey')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'leak_report',
                'ordering': ['-reported_at'],
            },
        ),
        migrations.AddConstraint(
            model_name='apikey',
            constraint=models.CheckConstraint(condition=models.Q(('replaces', models.F('id')), _negated=True), name='api_key_replaces_another'),
        ),
        migrations.RunSQL(
            ISOLATED, "ALTER TABLE api_key DROP CONSTRAINT api_key_replaces_same_tenant"
        ),
    ]
