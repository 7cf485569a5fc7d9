"""What adds up is looked for by index, however small the tables were when its plan was made.

A session keeps the plan of a function's statement. One that was made while a table had a page or
two reads all of it, and a month's closing fills it within minutes: each invoice would cost more than
the one before, until the table is analysed.
"""

from django.db import migrations

BY_INDEX = """
ALTER FUNCTION invoice_adds_up() SET enable_seqscan = off;
ALTER FUNCTION invoice_takes_interims_back() SET enable_seqscan = off;
ALTER FUNCTION billing_period_takes_interims() SET enable_seqscan = off;
ALTER FUNCTION credit_note_adds_up() SET enable_seqscan = off;
"""
UNDO = BY_INDEX.replace("SET enable_seqscan = off", "RESET enable_seqscan")


class Migration(migrations.Migration):
    dependencies = [("invoicing", "0008_credit_notes_stay")]

    operations = [migrations.RunSQL(BY_INDEX, UNDO)]
