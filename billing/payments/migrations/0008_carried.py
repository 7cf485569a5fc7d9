"""Invoices too small to be charged by themselves, and the runs that take them along."""

import django.db.models.deletion
import meterplane.kernel.clock
import meterplane.kernel.ids
from django.db import migrations, models

ISOLATED = """
SELECT meterplane_isolate('carried_invoice');
ALTER TABLE carried_invoice
  ADD CONSTRAINT carried_invoice_same_tenant
    FOREIGN KEY (tenant_id, invoice_id) REFERENCES invoice (tenant_id, id),
  ADD CONSTRAINT carried_run_same_tenant
    FOREIGN KEY (tenant_id, run_id) REFERENCES payment_run (tenant_id, id);
"""


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0007_reconciled"),
        ("invoicing", "0011_carried"),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.CreateModel(
            name="CarriedInvoice",
            fields=[
                ("id", models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ("amount_minor", models.BigIntegerField(blank=True, null=True)),
                ("created_at", models.DateTimeField(default=meterplane.kernel.clock.now)),
                ("invoice", models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name="carried", to="invoicing.invoice")),
                ("run", models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name="carries", to="payments.paymentrun")),
                ("tenant", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="+", to="tenants.organisation")),
            ],
            options={
                "db_table": "carried_invoice",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("amount_minor__isnull", True), ("run__isnull", True)),
                            models.Q(("amount_minor__gt", 0), ("run__isnull", False)),
                            _connector="OR",
                        ),
                        name="carried_with_an_amount",
                    )
                ],
            },
        ),
        migrations.RunSQL(ISOLATED, migrations.RunSQL.noop),
    ]
