"""What each night's audit of the ledger found."""

import meterplane.kernel.clock
from django.db import migrations, models

# It belongs to no tenant: only the system's door reaches it. A night is noted once and stays.
RIGHTS = """
REVOKE ALL ON ledger_audit FROM meterplane_app;
REVOKE DELETE, TRUNCATE ON ledger_audit FROM meterplane_system;
ALTER TABLE ledger_audit ADD CONSTRAINT ledger_audit_findings_array
  CHECK (jsonb_typeof(findings) = 'array');
"""


class Migration(migrations.Migration):
    dependencies = [("ledger", "0002_customer_balance")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.CreateModel(
            name="AuditRun",
            fields=[
                ("on", models.DateField(primary_key=True, serialize=False)),
                ("started_at", models.DateTimeField(default=meterplane.kernel.clock.now)),
                ("finished_at", models.DateTimeField(null=True)),
                ("after", models.UUIDField(null=True)),
                ("organisations", models.BigIntegerField(default=0)),
                ("entries", models.BigIntegerField(default=0)),
                ("wrong", models.BigIntegerField(default=0)),
                ("findings", models.JSONField(default=list)),
            ],
            options={
                "db_table": "ledger_audit",
                "ordering": ["-on"],
                "verbose_name": "ledger audit",
            },
        ),
        migrations.AddConstraint(
            model_name="auditrun",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("entries__gte", 0), ("organisations__gte", 0), ("wrong__gte", 0)
                ),
                name="ledger_audit_counts_up",
            ),
        ),
        migrations.RunSQL(RIGHTS, migrations.RunSQL.noop),
    ]
