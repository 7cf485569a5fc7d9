"""Accounts for disputed payments: what is held, lost and paid in fees."""

from django.db import migrations, models

NAMES = (
    "receivable|payments|credits:purchased|credits:promotional|deferred_revenue|refunds"
    "|customer_balance|breakage|promotions|goodwill|bad_debt|disputed|dispute_losses|dispute_fees"
    "|rounding"
)


class Migration(migrations.Migration):

    dependencies = [("ledger", "0004_corrections")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RemoveConstraint(model_name="ledgerleg", name="ledger_leg_account_known"),
        migrations.AddConstraint(
            model_name="ledgerleg",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("account__regex", f"^({NAMES}|(revenue|tax):[A-Za-z0-9][A-Za-z0-9_.-]{{0,63}})$")
                ),
                name="ledger_leg_account_known",
            ),
        ),
    ]
