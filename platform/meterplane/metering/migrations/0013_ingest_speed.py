"""Usage is taken in twice as fast: what was asked of each event is asked of its hour.

Foreign keys. Three of them were asked for each event: a third and more of what it cost PostgreSQL
to take one in. The statement that inserts an event also adds it to the row of `usage_hour` of its
key, and hours are kept for ever: so the hour asks, once for each of its rows and not for each of
its events. That an event is in its hour, reconciliation proves.

Sums are updated far more often than read: a page of them is left half empty, so that a new version
of a row finds room beside the old one and no index hears of it.

Nothing that runs before this misses the keys. They are validated by the next migration, after the
short locks of this one.
"""

from django.db import migrations

KEYS = """
ALTER TABLE usage_hour
  ADD CONSTRAINT usage_hour_project_same_tenant
    FOREIGN KEY (tenant_id, project_id) REFERENCES project (tenant_id, id) NOT VALID,
  ADD CONSTRAINT usage_hour_key_same_tenant
    FOREIGN KEY (tenant_id, key_id) REFERENCES api_key (tenant_id, id) NOT VALID;
ALTER TABLE usage_event
  DROP CONSTRAINT usage_event_tenant_id_fkey,
  DROP CONSTRAINT usage_event_project_same_tenant,
  DROP CONSTRAINT usage_event_key_same_tenant;
"""
KEYS_BACK = """
ALTER TABLE usage_event
  ADD CONSTRAINT usage_event_tenant_id_fkey
    FOREIGN KEY (tenant_id) REFERENCES organisation (id),
  ADD CONSTRAINT usage_event_project_same_tenant
    FOREIGN KEY (tenant_id, project_id) REFERENCES project (tenant_id, id),
  ADD CONSTRAINT usage_event_key_same_tenant
    FOREIGN KEY (tenant_id, key_id) REFERENCES api_key (tenant_id, id);
ALTER TABLE usage_hour
  DROP CONSTRAINT usage_hour_project_same_tenant, DROP CONSTRAINT usage_hour_key_same_tenant;
"""

# What is written already stays where it is; every page that is written from now on has the room.
SUMS = ("usage_hour", "usage_day", "usage_tag_hour", "usage_spend", "usage_revision")
ROOM = [f"ALTER TABLE {table} SET (fillfactor = 50)" for table in SUMS]
ROOM_BACK = [f"ALTER TABLE {table} RESET (fillfactor)" for table in SUMS]


class Migration(migrations.Migration):
    dependencies = [("metering", "0012_exports")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RunSQL(KEYS, KEYS_BACK),
        migrations.RunSQL(ROOM, ROOM_BACK),
    ]
