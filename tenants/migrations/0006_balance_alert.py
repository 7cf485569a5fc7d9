"""Below which prepaid balance somebody is told."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('tenants', '0005_balance_top_ups'),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.AddField(
            model_name='organisation',
            name='balance_alert_nano',
            field=models.BigIntegerField(blank=True, null=True),
        ),
        migrations.AddConstraint(
            model_name='organisation',
            constraint=models.CheckConstraint(condition=models.Q(('balance_alert_nano__isnull', True), ('balance_alert_nano__gte', 0), _connector='OR'), name='organisation_balance_alert'),
        ),
    ]
