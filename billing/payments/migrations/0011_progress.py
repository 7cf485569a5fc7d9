"""How far collecting is, and what is to be collected, is found without reading every invoice."""

from django.db import migrations

INDEXES = """
CREATE INDEX invoice_uncollected ON invoice (created_at, collection_state)
  WHERE collection_state IN ('pending', 'parked');
CREATE INDEX invoice_created ON invoice (created_at) INCLUDE (collection_state);
CREATE INDEX payment_step_finalised ON payment_step (done_at) WHERE kind = 'finalise';
CREATE INDEX payment_run_leased ON payment_run (lease_until) WHERE lease_until IS NOT NULL;
"""
BACK = """
DROP INDEX invoice_uncollected, invoice_created, payment_step_finalised, payment_run_leased;
"""


class Migration(migrations.Migration):
    dependencies = [("payments", "0010_disputes")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RunSQL(INDEXES, BACK),
    ]
