"""A line may be what a credit grant pays: it names the grant, is below zero and has no price.

Lines of the same price and meter stay unique: a credit line has no price version, and nulls differ.
"""

from django.db import migrations, models
import django.db.models.deletion

SAME_TENANT = """
ALTER TABLE invoice_line ADD CONSTRAINT invoice_line_credit_grant_same_tenant
  FOREIGN KEY (tenant_id, credit_grant_id) REFERENCES credit_grant (tenant_id, id);
"""


class Migration(migrations.Migration):

    dependencies = [("invoicing", "0004_documents"), ("credits", "0001_grants")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.AddField(
            model_name="invoiceline",
            name="credit_grant_id",
            field=models.UUIDField(blank=True, null=True),
        ),
        migrations.AlterField(
            model_name="invoiceline",
            name="price_version",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="pricing.pricebookversion",
            ),
        ),
        migrations.AddConstraint(
            model_name="invoiceline",
            constraint=models.UniqueConstraint(
                fields=("invoice", "credit_grant_id"), name="line_once_a_credit_grant"
            ),
        ),
        migrations.AddConstraint(
            model_name="invoiceline",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("credit_grant_id__isnull", True), ("price_version__isnull", False)),
                    models.Q(
                        ("amount_minor__lt", 0),
                        ("credit_grant_id__isnull", False),
                        ("price_version__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="line_has_a_price_or_a_grant",
            ),
        ),
        migrations.RunSQL(
            SAME_TENANT,
            "ALTER TABLE invoice_line DROP CONSTRAINT invoice_line_credit_grant_same_tenant",
        ),
    ]
