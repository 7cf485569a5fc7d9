"""No block of credit is granted above what the credit covers, whatever limit a gateway names."""

from django.db import migrations

# `take_budget` is the only one to say limit_nano. The grant is refused in its transaction; what was
# granted before the credit fell stays granted, and admission lets nobody have what is above.
GUARDED = """
CREATE FUNCTION credit_is_not_outspent() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $body$
BEGIN
  IF NEW.granted_nano > OLD.granted_nano AND NEW.granted_nano > COALESCE((
    SELECT amount_nano FROM credit_hold
     WHERE tenant_id = NEW.tenant_id AND is_held AND 'credit-' || generation = NEW."window"), 0)
  THEN
    RAISE EXCEPTION 'the credit of organisation % does not cover another block', NEW.tenant_id
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER credit_is_not_outspent BEFORE UPDATE OF limit_nano ON budget_window
  FOR EACH ROW WHEN (NEW."window" LIKE 'credit-%') EXECUTE FUNCTION credit_is_not_outspent();
"""

UNDO = """
DROP TRIGGER credit_is_not_outspent ON budget_window;
DROP FUNCTION credit_is_not_outspent();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('policy', '0004_alerts'),
        ('credits', '0002_prepaid'),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RunSQL(GUARDED, UNDO),
    ]
