"""Credit notes are written once: no role of the application may change or remove them.

Triggers refuse it to everybody; now the roles may not even ask.
"""

from django.db import migrations

STAY = """
REVOKE UPDATE, DELETE, TRUNCATE ON credit_note, credit_note_line, credit_note_tax
  FROM meterplane_app, meterplane_system;
"""
UNDO = """
GRANT UPDATE, DELETE ON credit_note, credit_note_line, credit_note_tax
  TO meterplane_app, meterplane_system;
"""


class Migration(migrations.Migration):
    dependencies = [("invoicing", "0007_settled_by_credit")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RunSQL(STAY, UNDO),
    ]
