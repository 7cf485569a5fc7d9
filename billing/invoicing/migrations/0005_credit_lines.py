"""A line may be what a credit grant pays: it names the grant, and is an amount below zero alone."""

from django.db import migrations, models

SAME_TENANT = """
ALTER TABLE invoice_line ADD CONSTRAINT invoice_line_credit_grant_same_tenant
  FOREIGN KEY (tenant_id, credit_grant_id) REFERENCES credit_grant (tenant_id, id);
"""
UNDO = "ALTER TABLE invoice_line DROP CONSTRAINT invoice_line_credit_grant_same_tenant"

KINDS = [
    ("usage", "Usage"),
    ("adjustment", "Adjustment"),
    ("discount", "Discount"),
    ("maximum", "Maximum spend"),
    ("minimum", "Minimum spend"),
    ("commitment", "Commitment"),
    ("credit", "Credit"),
]


class Migration(migrations.Migration):

    dependencies = [("invoicing", "0004_documents"), ("credits", "0001_grants")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RemoveConstraint(model_name="invoiceline", name="line_once"),
        migrations.RemoveConstraint(model_name="invoiceline", name="line_kind_known"),
        migrations.RemoveConstraint(model_name="invoiceline", name="line_of_a_contract"),
        migrations.AddField(
            model_name="invoiceline",
            name="credit_grant_id",
            field=models.UUIDField(null=True),
        ),
        migrations.AlterField(
            model_name="invoiceline",
            name="kind",
            field=models.CharField(
                choices=KINDS, db_default="usage", default="usage", max_length=16
            ),
        ),
        migrations.AddConstraint(
            model_name="invoiceline",
            constraint=models.UniqueConstraint(
                fields=(
                    "invoice", "period_start", "kind", "model", "service_tier", "meter",
                    "price_version", "entry_id", "contract_id", "credit_grant_id",
                ),
                name="line_once",
                nulls_distinct=False,
            ),
        ),
        migrations.AddConstraint(
            model_name="invoiceline",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", [kind for kind, _ in KINDS])),
                name="line_kind_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="invoiceline",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("amount_minor__lt", 0), ("credit_grant_id__isnull", False), ("kind", "credit")
                    ),
                    models.Q(
                        models.Q(("kind", "credit"), _negated=True),
                        ("credit_grant_id__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="line_of_a_credit_grant",
            ),
        ),
        migrations.AddConstraint(
            model_name="invoiceline",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("kind__in", ["usage", "adjustment", "credit"]),
                    models.Q(
                        ("contract_id__isnull", False), ("quantity", 0), ("unit_price_pico__isnull", True)
                    ),
                    _connector="OR",
                ),
                name="line_of_a_contract",
            ),
        ),
        migrations.RunSQL(SAME_TENANT, UNDO),
    ]
