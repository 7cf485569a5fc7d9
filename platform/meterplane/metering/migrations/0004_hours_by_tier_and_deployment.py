"""Hourly sums tell tiers and deployments apart: the key of `usage_hour` grows by both.

The problem: ingest adds by this key, all the time, and a key built under a lock would stop it for
as long as the table is large. So the new one is built beside the old one without a lock, and the two
change places in one statement, which waits for its lock at most five seconds. Every step can be run
again: one that was cut off leaves an index that is dropped first.

The limit: from the swap on, a worker that still runs the code before this one cannot add to an
hour. Its segments stay on their gateways' disks and are taken in by the workers that follow.
"""

from django.db import migrations

OLD_KEY = "tenant_id, hour, project_id, key_id, model, surface, status, price_version_id, currency"


def swapped(columns: str) -> list[str]:
    """Statements, each a transaction of its own, that leave `columns` as the primary key."""
    return [
        "SET lock_timeout = '5s'",
        "DROP INDEX IF EXISTS usage_hour_next_key",
        # Waits for those who write, never the other way round: it may take longer than a lock may.
        "SET lock_timeout = 0",
        f"CREATE UNIQUE INDEX CONCURRENTLY usage_hour_next_key ON usage_hour ({columns})",
        "SET lock_timeout = '5s'",
        "ALTER TABLE usage_hour DROP CONSTRAINT usage_hour_pkey,"
        " ADD CONSTRAINT usage_hour_pkey PRIMARY KEY USING INDEX usage_hour_next_key",
    ]


VALIDATED = [
    "ALTER TABLE usage_event VALIDATE CONSTRAINT usage_event_tier_known",
    "ALTER TABLE usage_event VALIDATE CONSTRAINT usage_event_facts_not_negative",
    "ALTER TABLE usage_hour VALIDATE CONSTRAINT usage_hour_tier_known",
    "ALTER TABLE usage_hour VALIDATE CONSTRAINT usage_hour_facts_not_negative",
]


class Migration(migrations.Migration):
    atomic = False  # an index is built concurrently outside of a transaction only

    dependencies = [("metering", "0003_event_facts")]

    operations = [
        # The way back holds only while no hour has two tiers or deployments: nothing is merged.
        migrations.RunSQL(swapped(f"{OLD_KEY}, service_tier, deployment"), swapped(OLD_KEY)),
        migrations.RunSQL(VALIDATED, migrations.RunSQL.noop),
    ]
