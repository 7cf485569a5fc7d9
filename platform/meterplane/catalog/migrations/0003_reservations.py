"""How much is held for a request that names no bound, what history says of it, and what was held.
"""

import django.db.models.deletion
import meterplane.kernel.ids
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('catalog', '0002_how_a_model_is_reached'),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.CreateModel(
            name='OverHold',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('currency', models.CharField(max_length=3)),
                ('since', models.DateTimeField()),
                ('until', models.DateTimeField()),
                ('requests', models.PositiveBigIntegerField()),
                ('reserved_nano', models.BigIntegerField()),
                ('cost_nano', models.BigIntegerField()),
                ('p50_nano', models.BigIntegerField()),
                ('p95_nano', models.BigIntegerField()),
            ],
            options={
                'db_table': 'catalog_over_hold',
                'ordering': ['currency'],
            },
        ),
        migrations.AddField(
            model_name='model',
            name='answers_learned_from',
            field=models.PositiveBigIntegerField(default=0, editable=False),
        ),
        migrations.AddField(
            model_name='model',
            name='learned_at',
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name='model',
            name='output_tokens_learned',
            field=models.PositiveIntegerField(editable=False, null=True),
        ),
        migrations.AddField(
            model_name='model',
            name='reserve',
            field=models.CharField(choices=[('bound', 'The output unless asked'), ('history', 'What 99 % of such answers needed')], default='bound', max_length=8),
        ),
        migrations.AddConstraint(
            model_name='model',
            constraint=models.CheckConstraint(condition=models.Q(('reserve__in', ['bound', 'history'])), name='model_reserve_known'),
        ),
        migrations.AddField(
            model_name='overhold',
            name='model',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='over_holds', to='catalog.model'),
        ),
        migrations.AddConstraint(
            model_name='overhold',
            constraint=models.UniqueConstraint(fields=('model', 'currency'), name='over_hold_once'),
        ),
        migrations.AddConstraint(
            model_name='overhold',
            constraint=models.CheckConstraint(condition=models.Q(('cost_nano__gte', 0), ('p50_nano__gte', 0), ('p95_nano__gte', models.F('p50_nano')), ('requests__gt', 0), ('reserved_nano__gte', models.F('cost_nano')), ('until__gt', models.F('since'))), name='over_hold_adds_up'),
        ),
    ]
