"""An event says its tier, which deployment served it, and where its time went.

Expands only. Constant defaults: no row is rewritten, and what still runs the code before this one
goes on inserting. Partitions get the columns from their parent, new ones through
`ensure_usage_partition`, which copies it. The checks are validated by the next migration, after
the short lock of this one.
"""

from django.db import migrations

COLUMNS = """
ALTER TABLE usage_event
  ADD COLUMN service_tier text NOT NULL DEFAULT 'standard',
  ADD COLUMN requested_model text NOT NULL DEFAULT '',
  ADD COLUMN deployment text NOT NULL DEFAULT '',
  ADD COLUMN tensor_bytes_in bigint NOT NULL DEFAULT 0,
  ADD COLUMN tensor_bytes_out bigint NOT NULL DEFAULT 0,
  ADD COLUMN queue_us bigint NOT NULL DEFAULT 0,
  ADD COLUMN compute_us bigint NOT NULL DEFAULT 0,
  ADD COLUMN retries integer NOT NULL DEFAULT 0,
  ADD COLUMN trace_id text NOT NULL DEFAULT '';
ALTER TABLE usage_event
  ADD CONSTRAINT usage_event_tier_known
    CHECK (service_tier IN ('standard', 'batch')) NOT VALID,
  ADD CONSTRAINT usage_event_facts_not_negative CHECK (
    tensor_bytes_in >= 0 AND tensor_bytes_out >= 0 AND queue_us >= 0 AND compute_us >= 0
    AND retries >= 0) NOT VALID;

ALTER TABLE usage_hour
  ADD COLUMN service_tier text NOT NULL DEFAULT 'standard',
  ADD COLUMN deployment text NOT NULL DEFAULT '',
  ADD COLUMN tensor_bytes_in bigint NOT NULL DEFAULT 0,
  ADD COLUMN tensor_bytes_out bigint NOT NULL DEFAULT 0,
  ADD COLUMN compute_us_sum bigint NOT NULL DEFAULT 0,
  ADD COLUMN first_byte_ms_sum bigint NOT NULL DEFAULT 0;
ALTER TABLE usage_hour
  ADD CONSTRAINT usage_hour_tier_known
    CHECK (service_tier IN ('standard', 'batch')) NOT VALID,
  ADD CONSTRAINT usage_hour_facts_not_negative CHECK (
    tensor_bytes_in >= 0 AND tensor_bytes_out >= 0 AND compute_us_sum >= 0
    AND first_byte_ms_sum >= 0) NOT VALID;
"""

UNDO = """
ALTER TABLE usage_event
  DROP COLUMN service_tier, DROP COLUMN requested_model, DROP COLUMN deployment,
  DROP COLUMN tensor_bytes_in, DROP COLUMN tensor_bytes_out, DROP COLUMN queue_us,
  DROP COLUMN compute_us, DROP COLUMN retries, DROP COLUMN trace_id;
ALTER TABLE usage_hour
  DROP COLUMN service_tier, DROP COLUMN deployment, DROP COLUMN tensor_bytes_in,
  DROP COLUMN tensor_bytes_out, DROP COLUMN compute_us_sum, DROP COLUMN first_byte_ms_sum;
"""


class Migration(migrations.Migration):
    dependencies = [("metering", "0002_content_and_currency")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RunSQL(COLUMNS, UNDO),
    ]
