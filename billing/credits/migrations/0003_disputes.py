"""Credit whose payment is disputed is taken back, and given back when the dispute is won."""

from django.db import migrations, models

MOVED = """
CREATE OR REPLACE FUNCTION credit_moved() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $body$
DECLARE
  granted credit_grant%ROWTYPE;
BEGIN
  SELECT * INTO STRICT granted FROM credit_grant
   WHERE tenant_id = NEW.tenant_id AND id = NEW.grant_id;
  -- Locks the grant's row: from here on its movements take turns. The check on it refuses overdraft.
  UPDATE credit_remaining
     SET remaining_minor = remaining_minor
       + CASE WHEN NEW.kind IN ('restored', 'reinstated') THEN NEW.amount_minor ELSE -NEW.amount_minor END
   WHERE grant_id = NEW.grant_id AND tenant_id = NEW.tenant_id;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'credit grant % has no row of what remains', NEW.grant_id
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.kind = 'drawn' AND (NEW.at <= granted.effective_at OR NEW.at > granted.expires_at) THEN
    RAISE EXCEPTION 'credit grant % is not live in a period that ends at %', granted.id, NEW.at
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.kind IN ('expired', 'rolled_over') AND (granted.expires_at IS NULL OR NEW.at < granted.expires_at)
  THEN
    RAISE EXCEPTION 'credit grant % has not expired at %', granted.id, NEW.at
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.kind = 'refunded' AND (granted.kind <> 'purchased' OR NEW.at >= granted.expires_at) THEN
    RAISE EXCEPTION 'credit grant % cannot be refunded', granted.id USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.kind = 'restored' AND (
    SELECT coalesce(sum(CASE kind WHEN 'drawn' THEN amount_minor ELSE -amount_minor END), 0)
      FROM credit_movement
     WHERE grant_id = NEW.grant_id AND invoice_id = NEW.invoice_id) < 0
  THEN
    RAISE EXCEPTION 'more comes back to credit grant % than invoice % drew', granted.id, NEW.invoice_id
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.kind = 'disputed' AND granted.kind <> 'purchased' THEN
    RAISE EXCEPTION 'credit grant % was not paid for', granted.id USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.kind = 'reinstated' AND (
    SELECT coalesce(sum(CASE kind WHEN 'disputed' THEN amount_minor ELSE -amount_minor END), 0)
      FROM credit_movement
     WHERE grant_id = NEW.grant_id AND kind IN ('disputed', 'reinstated')) < 0
  THEN
    RAISE EXCEPTION 'more comes back to credit grant % than disputes took', granted.id
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NULL;
END $body$;
"""

UNDO = """
CREATE OR REPLACE FUNCTION credit_moved() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $body$
DECLARE
  granted credit_grant%ROWTYPE;
BEGIN
  SELECT * INTO STRICT granted FROM credit_grant
   WHERE tenant_id = NEW.tenant_id AND id = NEW.grant_id;
  -- Locks the grant's row: from here on its movements take turns. The check on it refuses overdraft.
  UPDATE credit_remaining
     SET remaining_minor = remaining_minor
       + CASE NEW.kind WHEN 'restored' THEN NEW.amount_minor ELSE -NEW.amount_minor END
   WHERE grant_id = NEW.grant_id AND tenant_id = NEW.tenant_id;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'credit grant % has no row of what remains', NEW.grant_id
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.kind = 'drawn' AND (NEW.at <= granted.effective_at OR NEW.at > granted.expires_at) THEN
    RAISE EXCEPTION 'credit grant % is not live in a period that ends at %', granted.id, NEW.at
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.kind IN ('expired', 'rolled_over') AND (granted.expires_at IS NULL OR NEW.at < granted.expires_at)
  THEN
    RAISE EXCEPTION 'credit grant % has not expired at %', granted.id, NEW.at
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.kind = 'refunded' AND (granted.kind <> 'purchased' OR NEW.at >= granted.expires_at) THEN
    RAISE EXCEPTION 'credit grant % cannot be refunded', granted.id USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.kind = 'restored' AND (
    SELECT coalesce(sum(CASE kind WHEN 'drawn' THEN amount_minor ELSE -amount_minor END), 0)
      FROM credit_movement
     WHERE grant_id = NEW.grant_id AND invoice_id = NEW.invoice_id) < 0
  THEN
    RAISE EXCEPTION 'more comes back to credit grant % than invoice % drew', granted.id, NEW.invoice_id
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NULL;
END $body$;
"""


class Migration(migrations.Migration):
    dependencies = [("credits", "0002_prepaid"), ("ledger", "0005_disputes")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.AlterField(
            model_name="creditmovement",
            name="kind",
            field=models.CharField(
                choices=[
                    ("drawn", "Drawn"),
                    ("restored", "Restored"),
                    ("expired", "Expired"),
                    ("refunded", "Refunded"),
                    ("rolled_over", "Rolled over"),
                    ("disputed", "Disputed"),
                    ("reinstated", "Reinstated"),
                ],
                max_length=16,
            ),
        ),
        migrations.RemoveConstraint(model_name="creditmovement", name="credit_movement_kind"),
        migrations.AddConstraint(
            model_name="creditmovement",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("invoice_id__isnull", False), ("kind__in", ["drawn", "restored"])
                )
                | models.Q(
                    ("invoice_id__isnull", True),
                    (
                        "kind__in",
                        ["expired", "refunded", "rolled_over", "disputed", "reinstated"],
                    ),
                ),
                name="credit_movement_kind",
            ),
        ),
        migrations.RunSQL(MOVED, UNDO),
    ]
