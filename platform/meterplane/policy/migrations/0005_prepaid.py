"""Budgets of credit: no block is granted above what it covers, whatever limit a gateway names.

What was spent before an organisation was held to its credit is granted, and no pool ever gets it:
`take_budget` does not count it as under way to one. That is all that is new in the function.
"""

from django.db import migrations, models

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

TAKE_BUDGET = """
CREATE OR REPLACE FUNCTION take_budget(
  tenant uuid, level text, scope_id uuid, model text, window_label text,
  limit_now bigint, needed bigint, epoch text, grant_id uuid, told bigint
) RETURNS TABLE (block bigint, granted bigint, revision bigint, stranded boolean,
                 in_epoch bigint, under_way boolean)
LANGUAGE plpgsql SECURITY DEFINER
-- pg_temp last: a caller must not put a table of its own in front of ours.
SET search_path = public, pg_temp AS $body$
#variable_conflict use_column
DECLARE
  held budget_window%ROWTYPE;
  over boolean;
  since interval;
  pace bigint;
  rest bigint;
  give bigint := 0;
BEGIN
  IF needed <= 0 OR limit_now < 0 OR take_budget.epoch = '' THEN
    RAISE EXCEPTION 'a grant is for more than nothing, of a limit, in an epoch'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  PERFORM set_config('app.tenant_id', tenant::text, true);
  INSERT INTO budget_epoch (tenant_id, epoch, first_seen_at)
  VALUES (tenant, take_budget.epoch, clock_timestamp()) ON CONFLICT DO NOTHING;
  SELECT e.accounted_at IS NOT NULL INTO over FROM budget_epoch e
   WHERE e.tenant_id = tenant AND e.epoch = take_budget.epoch FOR SHARE;
  INSERT INTO budget_window (id, tenant_id, level, scope_id, model, "window", limit_nano,
                             granted_nano, block_nano, revision)
  VALUES (gen_random_uuid(), tenant, take_budget.level, take_budget.scope_id, take_budget.model,
          window_label, limit_now, 0, GREATEST(limit_now / 50, 1), 0)
  ON CONFLICT DO NOTHING;
  SELECT * INTO STRICT held FROM budget_window w
   WHERE w.tenant_id = tenant AND w.level = take_budget.level
     AND w.scope_id = take_budget.scope_id AND w.model = take_budget.model
     AND w."window" = window_label FOR UPDATE;

  -- Asked again under the same id, because the answer was lost: the same block.
  SELECT g.amount_nano INTO give FROM budget_grant g
   WHERE g.id = grant_id AND g.tenant_id = tenant AND g.epoch = take_budget.epoch;
  IF FOUND THEN
    RETURN QUERY SELECT give, held.granted_nano, held.revision, false, 0::bigint, false;
    RETURN;
  END IF;

  -- One block at a time is under way to a pool: a Redis that is lost loses no other. Whoever took
  -- it may have died with it, so it is not waited for long.
  since := clock_timestamp() - held.granted_at;  -- null before the first
  IF held.revision > told AND since < interval '0.25 s' THEN
    RETURN QUERY SELECT 0::bigint, held.granted_nano, held.revision, false, 0::bigint, true;
    RETURN;
  END IF;

  pace := CASE WHEN since < interval '0.5 s' THEN LEAST(held.block_nano, limit_now / 16) * 2
               WHEN since > interval '5 s' THEN held.block_nano / 2
               ELSE held.block_nano END;
  pace := GREATEST(LEAST(pace, limit_now / 8), 1);
  rest := limit_now - held.granted_nano;
  give := CASE WHEN over THEN 0
               WHEN rest >= needed THEN LEAST(GREATEST(LEAST(pace, rest / 8), needed), rest)
               ELSE 0 END;
  IF give = 0 THEN
    RETURN QUERY SELECT 0::bigint, held.granted_nano, held.revision, over OR EXISTS (
      SELECT FROM budget_grant g
        JOIN budget_epoch e ON e.tenant_id = g.tenant_id AND e.epoch = g.epoch
       WHERE g.tenant_id = tenant AND g.level = take_budget.level
         AND g.scope_id = take_budget.scope_id AND g.model = take_budget.model
         AND g."window" = window_label AND g.epoch <> take_budget.epoch
         AND e.accounted_at IS NULL),
      -- What of this its pool was not credited yet is under way to it, and may cover the request.
      (SELECT COALESCE(sum(g.amount_nano), 0)::bigint FROM budget_grant g
        WHERE g.tenant_id = tenant AND g.level = take_budget.level
          AND g.scope_id = take_budget.scope_id AND g.model = take_budget.model
          AND g."window" = window_label AND g.epoch = take_budget.epoch AND g.is_pooled),
      false;
    RETURN;
  END IF;

  UPDATE budget_window w
     SET granted_nano = w.granted_nano + give, limit_nano = limit_now, block_nano = pace,
         granted_at = clock_timestamp(), revision = w.revision + 1
   WHERE w.id = held.id AND w.granted_nano + give <= limit_now
  RETURNING w.granted_nano, w.revision INTO STRICT held.granted_nano, held.revision;
  INSERT INTO budget_grant (id, tenant_id, level, scope_id, model, "window", epoch, amount_nano,
                            granted_at, credited)
  VALUES (grant_id, tenant, take_budget.level, take_budget.scope_id, take_budget.model,
          window_label, take_budget.epoch, give, clock_timestamp(), false);
  RETURN QUERY SELECT give, held.granted_nano, held.revision, false, 0::bigint, false;
END $body$;
"""

TAKE_BUDGET_BEFORE = TAKE_BUDGET.replace(" AND g.is_pooled", "")

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
        migrations.AddField(
            model_name='budgetgrant',
            name='is_pooled',
            field=models.BooleanField(default=True, db_default=True),
        ),
        migrations.RunSQL(TAKE_BUDGET, TAKE_BUDGET_BEFORE),
        migrations.RunSQL(GUARDED, UNDO),
    ]
