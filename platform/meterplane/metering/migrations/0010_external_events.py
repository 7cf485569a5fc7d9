"""Usage that did not pass the gateway, what was said of it afterwards, and backfills.

Expands only. Nobody may change or delete an event or an overlay, whatever its role: the key
(organisation, source, id) answers for ever.
"""

from django.db import migrations

BACKFILL = """
CREATE TABLE backfill (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL REFERENCES organisation (id),
  type text NOT NULL,
  starts_at timestamptz NOT NULL,
  ends_at timestamptz NOT NULL,
  reason text NOT NULL,
  state text NOT NULL DEFAULT 'open',
  opened_by text NOT NULL,
  opened_at timestamptz NOT NULL,
  closed_by text,
  closed_at timestamptz,
  added bigint,
  replaced bigint,
  reverted_by text,
  reverted_at timestamptz,
  revert_reason text,
  CONSTRAINT backfill_frame CHECK (starts_at < ends_at),
  CONSTRAINT backfill_reason CHECK (reason <> '' AND revert_reason <> ''),
  CONSTRAINT backfill_state CHECK (
    (state = 'open' AND num_nulls(closed_by, closed_at, added, replaced) = 4
      AND num_nulls(reverted_by, reverted_at, revert_reason) = 3)
    OR (state = 'closed' AND num_nulls(closed_by, closed_at, added, replaced) = 0
      AND num_nulls(reverted_by, reverted_at, revert_reason) = 3)
    OR (state = 'reverted' AND num_nulls(closed_by, closed_at, added, replaced) IN (0, 4)
      AND num_nulls(reverted_by, reverted_at, revert_reason) = 0))
);
SELECT meterplane_isolate('backfill');
REVOKE INSERT, UPDATE, DELETE ON backfill FROM meterplane_app;
REVOKE DELETE ON backfill FROM meterplane_system;
CREATE INDEX backfill_of_type ON backfill (tenant_id, type, opened_at);
"""

# `digest` is of what was sent, and what a repeated id is held to; `content_digest` of the time and
# the data that count, which an overlay continues.
EVENTS = """
CREATE TABLE external_event (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL REFERENCES organisation (id),
  project_id uuid NOT NULL,
  source text NOT NULL,
  event_id text NOT NULL,
  type text NOT NULL,
  event_at timestamptz NOT NULL,
  time_was_sent boolean NOT NULL,
  data jsonb NOT NULL,
  attributes jsonb NOT NULL,
  backfill_id uuid,
  digest bytea NOT NULL,
  content_digest bytea NOT NULL,
  received_at timestamptz NOT NULL,
  received_by text NOT NULL,
  CONSTRAINT external_event_once UNIQUE (tenant_id, source, event_id),
  CONSTRAINT external_event_objects CHECK (
    jsonb_typeof(data) = 'object' AND jsonb_typeof(attributes) = 'object'),
  CONSTRAINT external_event_names CHECK (source <> '' AND event_id <> '' AND type <> ''),
  CONSTRAINT external_event_digests CHECK (
    octet_length(digest) = 32 AND octet_length(content_digest) = 32),
  CONSTRAINT external_event_project_same_tenant
    FOREIGN KEY (tenant_id, project_id) REFERENCES project (tenant_id, id),
  CONSTRAINT external_event_backfill_same_tenant
    FOREIGN KEY (tenant_id, backfill_id) REFERENCES backfill (tenant_id, id)
);
SELECT meterplane_isolate('external_event');
REVOKE INSERT, UPDATE, DELETE ON external_event FROM meterplane_app;
REVOKE UPDATE, DELETE ON external_event FROM meterplane_system;
CREATE INDEX external_event_of_type ON external_event (tenant_id, type, event_at);
CREATE INDEX external_event_of_backfill ON external_event (tenant_id, backfill_id)
  WHERE backfill_id IS NOT NULL;

CREATE TABLE event_overlay (
  tenant_id uuid NOT NULL REFERENCES organisation (id),
  receipt_id uuid NOT NULL,
  number integer NOT NULL,
  kind text NOT NULL,
  event_at timestamptz NOT NULL,
  data jsonb NOT NULL,
  counts boolean NOT NULL,
  reason text NOT NULL,
  made_by text NOT NULL,
  made_at timestamptz NOT NULL,
  digest_before bytea,
  digest_after bytea,
  backfill_id uuid,
  PRIMARY KEY (tenant_id, receipt_id, number),
  CONSTRAINT event_overlay_numbered CHECK (number > 0),
  CONSTRAINT event_overlay_kind CHECK (
    kind IN ('amend', 'deprecate', 'replace', 'restore')
    AND counts = (kind IN ('amend', 'restore'))
    AND (backfill_id IS NOT NULL) = (kind IN ('replace', 'restore'))),
  CONSTRAINT event_overlay_says_why CHECK (reason <> '' AND made_by <> ''),
  CONSTRAINT event_overlay_data_object CHECK (jsonb_typeof(data) = 'object'),
  CONSTRAINT event_overlay_digests CHECK (
    (digest_after IS NOT NULL) = counts AND (digest_before IS NOT NULL) = (kind <> 'restore')),
  CONSTRAINT event_overlay_event_same_tenant
    FOREIGN KEY (tenant_id, receipt_id) REFERENCES external_event (tenant_id, id),
  CONSTRAINT event_overlay_backfill_same_tenant
    FOREIGN KEY (tenant_id, backfill_id) REFERENCES backfill (tenant_id, id)
);
SELECT meterplane_isolate('event_overlay');
REVOKE INSERT, UPDATE, DELETE ON event_overlay FROM meterplane_app;
REVOKE UPDATE, DELETE ON event_overlay FROM meterplane_system;
CREATE INDEX event_overlay_at ON event_overlay (tenant_id, event_at);
CREATE INDEX event_overlay_of_backfill ON event_overlay (tenant_id, backfill_id)
  WHERE backfill_id IS NOT NULL;
"""

# The owner is not bound by grants.
GUARDS = """
CREATE FUNCTION append_only_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  RAISE EXCEPTION '% is appended to: a row of it cannot be changed or deleted', TG_TABLE_NAME
    USING ERRCODE = 'restrict_violation';
END $body$;
CREATE TRIGGER append_only_guard BEFORE UPDATE OR DELETE ON external_event
  FOR EACH ROW EXECUTE FUNCTION append_only_guard();
CREATE TRIGGER append_only_guard BEFORE UPDATE OR DELETE ON event_overlay
  FOR EACH ROW EXECUTE FUNCTION append_only_guard();

CREATE FUNCTION backfill_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF (OLD.state, NEW.state) NOT IN (('open', 'closed'), ('open', 'reverted'), ('closed', 'reverted'))
    OR (OLD.id, OLD.tenant_id, OLD.type, OLD.starts_at, OLD.ends_at, OLD.reason, OLD.opened_by,
        OLD.opened_at)
      IS DISTINCT FROM
       (NEW.id, NEW.tenant_id, NEW.type, NEW.starts_at, NEW.ends_at, NEW.reason, NEW.opened_by,
        NEW.opened_at) THEN
    RAISE EXCEPTION 'backfill % is %: it cannot become that', OLD.id, OLD.state
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER backfill_guard BEFORE UPDATE ON backfill
  FOR EACH ROW EXECUTE FUNCTION backfill_guard();
"""

# In two parts, so that each finds an interval of time by its own index: events nobody said more
# of, and the newest overlay of each other one.
EFFECTIVE = """
CREATE VIEW effective_event WITH (security_invoker = true) AS
SELECT e.tenant_id, e.id, e.project_id, e.source, e.event_id, e.type, e.event_at, e.data,
       e.backfill_id, 0 AS overlay, e.content_digest
  FROM external_event e
  LEFT JOIN backfill b ON b.tenant_id = e.tenant_id AND b.id = e.backfill_id
 WHERE (e.backfill_id IS NULL OR b.state = 'closed')
   AND NOT EXISTS (
     SELECT FROM event_overlay o WHERE o.tenant_id = e.tenant_id AND o.receipt_id = e.id)
UNION ALL
SELECT e.tenant_id, e.id, e.project_id, e.source, e.event_id, e.type, o.event_at, o.data,
       e.backfill_id, o.number, o.digest_after
  FROM event_overlay o
  JOIN external_event e ON e.tenant_id = o.tenant_id AND e.id = o.receipt_id
  LEFT JOIN backfill b ON b.tenant_id = e.tenant_id AND b.id = e.backfill_id
 WHERE o.counts
   AND (e.backfill_id IS NULL OR b.state = 'closed')
   AND NOT EXISTS (
     SELECT FROM event_overlay n
      WHERE n.tenant_id = o.tenant_id AND n.receipt_id = o.receipt_id AND n.number > o.number);
REVOKE INSERT, UPDATE, DELETE ON effective_event FROM meterplane_app, meterplane_system;
"""

UNDO = """
DROP VIEW effective_event;
DROP TABLE event_overlay, external_event, backfill;
DROP FUNCTION append_only_guard();
DROP FUNCTION backfill_guard();
"""


class Migration(migrations.Migration):
    dependencies = [("metering", "0009_tags_and_days")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RunSQL(BACKFILL + EVENTS + GUARDS + EFFECTIVE, UNDO),
    ]
