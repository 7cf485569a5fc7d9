"""Each payment into a prepaid balance is a row, so that one told of twice is paid in once."""

import django.db.models.deletion
import meterplane.kernel.clock
import meterplane.kernel.ids
from django.db import migrations, models

# What was paid in stays written.
ISOLATED = """
SELECT meterplane_isolate('balance_top_up');
REVOKE UPDATE, DELETE ON balance_top_up FROM meterplane_app, meterplane_system;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('tenants', '0004_limits_in_the_database'),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.CreateModel(
            name='BalanceTopUp',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('amount_nano', models.BigIntegerField()),
                ('reference', models.CharField(max_length=120)),
                ('paid_in_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'balance_top_up',
                'ordering': ['-paid_in_at', '-id'],
                'constraints': [models.UniqueConstraint(fields=('tenant', 'reference'), name='balance_top_up_once'), models.CheckConstraint(condition=models.Q(('amount_nano__gte', 1)), name='balance_top_up_positive')],
            },
        ),
        migrations.RunSQL(ISOLATED, migrations.RunSQL.noop),
    ]
