"""A line says which service tier its usage was of: batches pay prices of their own.

The column has its default in the database, so that what still runs the code before this one can
close a period meanwhile.
"""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [("invoicing", "0001_invoices")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.AddField(
            model_name="invoiceline",
            name="service_tier",
            field=models.CharField(db_default="standard", default="standard", max_length=16),
        ),
        migrations.AddConstraint(
            model_name="invoiceline",
            constraint=models.CheckConstraint(
                condition=models.Q(("service_tier__in", ["standard", "batch"])), name="line_tier_known"
            ),
        ),
        migrations.RemoveConstraint(model_name="invoiceline", name="line_once"),
        migrations.AddConstraint(
            model_name="invoiceline",
            constraint=models.UniqueConstraint(
                fields=("invoice", "period_start", "model", "service_tier", "meter", "price_version"),
                name="line_once",
            ),
        ),
    ]
