"""How many requests of a model are forwarded at once, how many wait, and its priority levels."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('catalog', '0003_reservations'),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.AddField(
            model_name='model',
            name='in_flight_max',
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='model',
            name='queue_max',
            field=models.PositiveIntegerField(default=512),
        ),
        migrations.AddField(
            model_name='model',
            name='queue_s_max',
            field=models.FloatField(default=10),
        ),
        migrations.AddField(
            model_name='model',
            name='priority_levels',
            field=models.PositiveIntegerField(default=0),
        ),
        migrations.AddConstraint(
            model_name='model',
            constraint=models.CheckConstraint(condition=models.Q(('queue_s_max__gte', 0), ('queue_s_max__lte', 30)), name='model_queue_is_short'),
        ),
    ]
