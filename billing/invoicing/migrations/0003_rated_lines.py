"""Lines of entries that are more than a unit price, of contracts, and of adjustments by amount.

New columns have their defaults in the database, so that what still runs the code before this one
can close a period meanwhile. A quantity of a declared meter may be a fraction: the column's values
stay as they are, with more room behind the point.
"""

import django.db.models.deletion
from django.db import migrations, models

SAME_TENANT = """
ALTER TABLE invoice_line ADD CONSTRAINT invoice_line_contract_same_tenant
  FOREIGN KEY (tenant_id, contract_id) REFERENCES contract (tenant_id, id);
"""

UNDO = "ALTER TABLE invoice_line DROP CONSTRAINT invoice_line_contract_same_tenant"


class Migration(migrations.Migration):

    dependencies = [("invoicing", "0002_line_tier"), ("pricing", "0003_entries")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RemoveConstraint(
            model_name='invoiceline',
            name='line_quantity_positive',
        ),
        migrations.RemoveConstraint(
            model_name='invoiceline',
            name='line_once',
        ),
        migrations.AddField(
            model_name='invoiceline',
            name='breakdown',
            field=models.JSONField(null=True),
        ),
        migrations.AddField(
            model_name='invoiceline',
            name='contract_id',
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name='invoiceline',
            name='display_name',
            field=models.CharField(blank=True, db_default='', default='', max_length=120),
        ),
        migrations.AddField(
            model_name='invoiceline',
            name='entry_id',
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name='invoiceline',
            name='kind',
            field=models.CharField(choices=[('usage', 'Usage'), ('adjustment', 'Adjustment'), ('discount', 'Discount'), ('maximum', 'Maximum spend'), ('minimum', 'Minimum spend'), ('commitment', 'Commitment')], db_default='usage', default='usage', max_length=16),
        ),
        migrations.AddField(
            model_name='invoiceline',
            name='price_model',
            field=models.JSONField(null=True),
        ),
        migrations.AlterField(
            model_name='invoiceline',
            name='description',
            field=models.CharField(max_length=500),
        ),
        migrations.AlterField(
            model_name='invoiceline',
            name='meter',
            field=models.CharField(blank=True, max_length=64),
        ),
        migrations.AlterField(
            model_name='invoiceline',
            name='model',
            field=models.CharField(blank=True, max_length=80),
        ),
        migrations.AlterField(
            model_name='invoiceline',
            name='price_version',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='pricing.pricebookversion'),
        ),
        migrations.AlterField(
            model_name='invoiceline',
            name='quantity',
            field=models.DecimalField(decimal_places=18, max_digits=56),
        ),
        migrations.AlterField(
            model_name='invoiceline',
            name='unit_price_pico',
            field=models.BigIntegerField(null=True),
        ),
        migrations.AddConstraint(
            model_name='invoiceline',
            constraint=models.UniqueConstraint(fields=('invoice', 'period_start', 'kind', 'model', 'service_tier', 'meter', 'price_version', 'entry_id', 'contract_id'), name='line_once', nulls_distinct=False),
        ),
        migrations.AddConstraint(
            model_name='invoiceline',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['usage', 'adjustment', 'discount', 'maximum', 'minimum', 'commitment'])), name='line_kind_known'),
        ),
        migrations.AddConstraint(
            model_name='invoiceline',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('kind', 'usage'), _negated=True), ('quantity__gt', 0), _connector='OR'), name='line_quantity_positive'),
        ),
        migrations.AddConstraint(
            model_name='invoiceline',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('kind', 'usage'), _negated=True), models.Q(('price_version__isnull', False), ('unit_price_pico__isnull', False)), models.Q(('breakdown__isnull', False), ('entry_id__isnull', False), ('price_model__isnull', False)), _connector='OR'), name='line_says_its_price'),
        ),
        migrations.AddConstraint(
            model_name='invoiceline',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['usage', 'adjustment']), models.Q(('contract_id__isnull', False), ('quantity', 0), ('unit_price_pico__isnull', True)), _connector='OR'), name='line_of_a_contract'),
        ),
        migrations.RunSQL(SAME_TENANT, UNDO),
    ]
