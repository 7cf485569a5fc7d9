"""What credit settles: an invoice gives back what earlier ones drew, a note gives back credit alone.

Also what was paid of an invoice, where that is not what was due. Columns are null or have their
default, so what still runs the code before this one closes and collects meanwhile.
"""

import django.db.models.deletion
import meterplane.kernel.ids
from django.db import migrations, models

# Deferred: what comes back is known before the new invoice's total, and it is written with it.
ISOLATED = """
SELECT meterplane_isolate('credit_given_back');
ALTER TABLE credit_given_back
  ADD CONSTRAINT credit_given_back_invoice_same_tenant
    FOREIGN KEY (tenant_id, invoice_id) REFERENCES invoice (tenant_id, id)
    DEFERRABLE INITIALLY DEFERRED,
  ADD CONSTRAINT credit_given_back_drawn_by_same_tenant
    FOREIGN KEY (tenant_id, drawn_by_id) REFERENCES invoice (tenant_id, id);
REVOKE UPDATE, DELETE ON credit_given_back FROM meterplane_app, meterplane_system;
"""

GUARDED = """
CREATE TRIGGER credit_given_back_written_once BEFORE UPDATE OR DELETE ON credit_given_back
  FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Checked when the transaction commits: paper, credit and what ties them say the same.
CREATE FUNCTION credit_given_back_adds_up() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $body$
DECLARE
  lines numeric;
  rows numeric;
  moved numeric;
  door text := current_setting('app.tenant_id', true);
BEGIN
  -- The tenant's door is closed again by the time a deferred trigger runs.
  PERFORM set_config('app.tenant_id', NEW.tenant_id::text, true);
  SELECT coalesce(sum(amount_minor), 0) INTO lines FROM invoice_line
   WHERE invoice_id = NEW.invoice_id AND kind = 'credit' AND amount_minor > 0;
  SELECT coalesce(sum(amount_minor), 0) INTO rows FROM credit_given_back
   WHERE invoice_id = NEW.invoice_id;
  SELECT coalesce(sum(m.amount_minor), 0) INTO moved
    FROM credit_given_back b JOIN credit_movement m
      ON m.source_id = b.id AND m.kind = 'restored' AND m.invoice_id = b.drawn_by_id
   WHERE b.invoice_id = NEW.invoice_id;
  PERFORM set_config('app.tenant_id', coalesce(door, ''), true);
  IF (lines, moved) IS DISTINCT FROM (rows, rows) THEN
    RAISE EXCEPTION 'invoice % gives back % of credit, its lines say %, and % came back',
      NEW.invoice_id, rows, lines, moved USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NULL;
END $body$;
CREATE CONSTRAINT TRIGGER credit_given_back_adds_up AFTER INSERT ON credit_given_back
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION credit_given_back_adds_up();
CREATE CONSTRAINT TRIGGER invoice_line_given_back AFTER INSERT ON invoice_line
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.kind = 'credit' AND NEW.amount_minor > 0)
  EXECUTE FUNCTION credit_given_back_adds_up();

CREATE FUNCTION credit_note_of_credit_alone() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $body$
DECLARE
  gives boolean;
  door text := current_setting('app.tenant_id', true);
BEGIN
  PERFORM set_config('app.tenant_id', NEW.tenant_id::text, true);
  SELECT EXISTS (SELECT FROM credit_note_line c JOIN invoice_line l ON l.id = c.line_id
                  WHERE c.note_id = NEW.id AND l.kind = 'credit' AND l.amount_minor < 0) INTO gives;
  PERFORM set_config('app.tenant_id', coalesce(door, ''), true);
  IF NOT gives THEN
    RAISE EXCEPTION 'credit note % gives nothing back', NEW.number
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NULL;
END $body$;
CREATE CONSTRAINT TRIGGER credit_note_of_credit_alone AFTER INSERT ON credit_note
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.total_minor = 0)
  EXECUTE FUNCTION credit_note_of_credit_alone();

CREATE FUNCTION invoice_paid_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF OLD.status = 'paid' AND NEW.paid_minor IS DISTINCT FROM OLD.paid_minor THEN
    RAISE EXCEPTION 'what was paid of invoice % is known', OLD.number
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER invoice_paid_guard BEFORE UPDATE ON invoice
  FOR EACH ROW EXECUTE FUNCTION invoice_paid_guard();
"""

UNDO = """
DROP TRIGGER invoice_paid_guard ON invoice;
DROP FUNCTION invoice_paid_guard();
DROP TRIGGER credit_note_of_credit_alone ON credit_note;
DROP FUNCTION credit_note_of_credit_alone();
DROP TRIGGER invoice_line_given_back ON invoice_line;
DROP TRIGGER credit_given_back_adds_up ON credit_given_back;
DROP FUNCTION credit_given_back_adds_up();
DROP TRIGGER credit_given_back_written_once ON credit_given_back;
"""


class Migration(migrations.Migration):

    dependencies = [("invoicing", "0006_interim"), ("credits", "0001_grants")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.AddField(
            model_name="invoice",
            name="paid_minor",
            field=models.BigIntegerField(blank=True, null=True),
        ),
        migrations.AddConstraint(
            model_name="invoice",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("paid_minor__isnull", True),
                    models.Q(("paid_minor__gte", 0), ("status", "paid")),
                    _connector="OR",
                ),
                name="invoice_paid_minor_of_a_paid_one",
            ),
        ),
        migrations.RemoveConstraint(model_name="creditnote", name="credit_note_gives_back"),
        migrations.AddConstraint(
            model_name="creditnote",
            constraint=models.CheckConstraint(
                condition=models.Q(("total_minor__gte", 0)), name="credit_note_gives_back"
            ),
        ),
        migrations.RemoveConstraint(model_name="invoiceline", name="line_of_a_credit_grant"),
        migrations.AddConstraint(
            model_name="invoiceline",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("credit_grant_id__isnull", False),
                        ("kind", "credit"),
                        models.Q(("amount_minor", 0), _negated=True),
                    ),
                    models.Q(
                        models.Q(("kind", "credit"), _negated=True),
                        ("credit_grant_id__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="line_of_a_credit_grant",
            ),
        ),
        migrations.CreateModel(
            name="CreditGivenBack",
            fields=[
                ("id", models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ("month", models.DateTimeField()),
                ("amount_minor", models.BigIntegerField()),
                ("drawn_by", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="+", to="invoicing.invoice")),
                ("invoice", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="gives_back", to="invoicing.invoice")),
                ("tenant", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="+", to="tenants.organisation")),
            ],
            options={
                "db_table": "credit_given_back",
                "constraints": [
                    models.UniqueConstraint(fields=("invoice", "drawn_by", "month"), name="credit_given_back_once"),
                    models.CheckConstraint(condition=models.Q(("amount_minor__gt", 0)), name="credit_given_back_positive"),
                    models.CheckConstraint(condition=models.Q(("invoice", models.F("drawn_by")), _negated=True), name="credit_given_back_of_an_earlier_one"),
                ],
            },
        ),
        migrations.RunSQL(ISOLATED, migrations.RunSQL.noop),
        migrations.RunSQL(GUARDED, UNDO),
    ]
