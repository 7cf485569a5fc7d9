"""Organisations that are held to their credit."""

import django.db.models.deletion
import meterplane.kernel.clock
import meterplane.kernel.ids
from django.db import migrations, models

# Never deleted: its number tells the pools of each time of being held apart.
ISOLATED = """
SELECT meterplane_isolate('credit_hold');
REVOKE DELETE ON credit_hold FROM meterplane_app, meterplane_system;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('credits', '0001_grants'),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.AlterField(
            model_name='creditgrant',
            name='rolled_from',
            field=models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='successor', to='credits.creditgrant'),
        ),
        migrations.CreateModel(
            name='CreditHold',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('is_held', models.BooleanField(default=True)),
                ('generation', models.PositiveIntegerField(default=1)),
                ('held_since', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('counted_from', models.DateField()),
                ('opening_nano', models.BigIntegerField(default=0)),
                ('settled_nano', models.BigIntegerField(default=0)),
                ('amount_nano', models.BigIntegerField(default=0)),
                ('next_look_at', models.DateTimeField(null=True)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'credit_hold',
                'indexes': [models.Index(fields=['next_look_at'], condition=models.Q(('is_held', True)), name='credit_hold_next_look')],
                'constraints': [
                    models.UniqueConstraint(fields=('tenant',), name='credit_hold_once'),
                    models.CheckConstraint(condition=models.Q(('amount_nano__gte', 0), ('opening_nano__gte', 0), ('settled_nano__gte', 0)), name='credit_hold_not_negative'),
                    models.CheckConstraint(condition=models.Q(('generation__gte', 1)), name='credit_hold_generation_counts'),
                ],
            },
        ),
        migrations.RunSQL(ISOLATED, migrations.RunSQL.noop),
    ]
