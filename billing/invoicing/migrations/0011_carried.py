"""An invoice may be collected with the next one."""

from django.db import migrations, models

_STATES = ["pending", "awaiting_payment", "carried", "parked", "done"]


class Migration(migrations.Migration):
    dependencies = [("invoicing", "0010_taxed_by")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RemoveConstraint(model_name="invoice", name="invoice_collection_known"),
        migrations.AlterField(
            model_name="invoice",
            name="collection_state",
            field=models.CharField(
                choices=[
                    ("pending", "To be collected"),
                    ("awaiting_payment", "Waiting for the customer"),
                    ("carried", "Too small alone: with the next invoice"),
                    ("parked", "Parked: needs a person"),
                    ("done", "Done"),
                ],
                default="pending",
                max_length=20,
            ),
        ),
        migrations.AddConstraint(
            model_name="invoice",
            constraint=models.CheckConstraint(
                condition=models.Q(collection_state__in=_STATES), name="invoice_collection_known"
            ),
        ),
    ]
