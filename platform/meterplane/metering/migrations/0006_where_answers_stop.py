"""An event says where the engine was told to stop an answer that was asked for without a bound.

What history tells of the length of answers rests on it: an answer that was cut was not over. Of
events before this one it is not known whether a bound was named, so none of them is history: 0.

Expands only: a constant default, no row is rewritten.
"""

from django.db import migrations

COLUMN = """
ALTER TABLE usage_event ADD COLUMN tokens_out_stop bigint NOT NULL DEFAULT 0;
ALTER TABLE usage_event ADD CONSTRAINT usage_event_stop_not_negative
  CHECK (tokens_out_stop >= 0) NOT VALID;
"""
UNDO = "ALTER TABLE usage_event DROP COLUMN tokens_out_stop"


class Migration(migrations.Migration):
    dependencies = [("metering", "0005_epochs")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RunSQL(COLUMN, UNDO),
    ]
