"""An organisation's own limits and restrictions stand beside the operator's, told apart."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('tenants', '0006_balance_alert'),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RemoveConstraint(
            model_name='limit',
            name='tenant_limit_once',
        ),
        migrations.RemoveConstraint(
            model_name='restriction',
            name='tenant_restriction_once',
        ),
        migrations.AddField(
            model_name='limit',
            name='set_by',
            field=models.CharField(choices=[('operator', 'Operator'), ('organisation', 'Organisation')], default='operator', max_length=16),
        ),
        migrations.AddField(
            model_name='restriction',
            name='set_by',
            field=models.CharField(choices=[('operator', 'Operator'), ('organisation', 'Organisation')], default='operator', max_length=16),
        ),
        migrations.AddConstraint(
            model_name='limit',
            constraint=models.UniqueConstraint(fields=('tenant', 'level', 'scope_id', 'model', 'kind', 'window', 'set_by'), name='tenant_limit_once'),
        ),
        migrations.AddConstraint(
            model_name='limit',
            constraint=models.CheckConstraint(condition=models.Q(('set_by', 'operator'), models.Q(('amount__isnull', False), ('burst__isnull', True), ('set_by', 'organisation'), models.Q(('window', 'prepaid'), _negated=True)), _connector='OR'), name='tenant_limit_own_narrows'),
        ),
        migrations.AddConstraint(
            model_name='restriction',
            constraint=models.UniqueConstraint(fields=('tenant', 'level', 'scope_id', 'set_by'), name='tenant_restriction_once'),
        ),
        migrations.AddConstraint(
            model_name='restriction',
            constraint=models.CheckConstraint(condition=models.Q(('set_by__in', ['operator', 'organisation'])), name='tenant_restriction_set_by'),
        ),
    ]
