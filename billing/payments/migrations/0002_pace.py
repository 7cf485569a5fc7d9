"""When each endpoint of a provider is free for the next call. No tenant's, and not logged."""

from django.db import migrations

PACE = """
CREATE UNLOGGED TABLE IF NOT EXISTS provider_pace (
  account text NOT NULL,
  endpoint text NOT NULL,
  spacing interval NOT NULL,
  free_at timestamptz NOT NULL,
  PRIMARY KEY (account, endpoint)
) WITH (fillfactor = 50);
"""


class Migration(migrations.Migration):
    dependencies = [("payments", "0001_payments")]
    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RunSQL(PACE, "DROP TABLE IF EXISTS provider_pace"),
    ]
