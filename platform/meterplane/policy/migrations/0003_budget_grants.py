"""Every grant is written down, with the epoch it was taken for; blocks adapt to how fast they go.

`take_budget` has another signature: gateways and this schema change together.
"""

import django.db.models.deletion
import meterplane.kernel.clock
from django.db import migrations, models

ISOLATED = """
SELECT meterplane_isolate('budget_epoch');
SELECT meterplane_isolate('budget_grant');
ALTER TABLE budget_grant ADD CONSTRAINT budget_grant_epoch_same_tenant
  FOREIGN KEY (tenant_id, epoch) REFERENCES budget_epoch (tenant_id, epoch);
-- Money is moved by take_budget and by the system's sweeps: who serves a tenant's pages reads it.
REVOKE INSERT, UPDATE, DELETE ON budget_window, budget_epoch, budget_grant FROM meterplane_app;
DROP FUNCTION take_budget(uuid, text, uuid, text, bigint, bigint, bigint);
"""

# granted <= limit is decided in one conditional update of a locked row: two gateways that race for
# the last block cannot both have it. The epoch's row is locked against being accounted for, always
# before the window's: a grant is either counted there, or refused because its epoch is over.
TAKE_BUDGET = """
CREATE FUNCTION take_budget(
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
          AND g."window" = window_label AND g.epoch = take_budget.epoch),
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
REVOKE EXECUTE ON FUNCTION take_budget FROM PUBLIC, meterplane_app, meterplane_system;
GRANT EXECUTE ON FUNCTION take_budget TO meterplane_gateway;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('policy', '0002_servings'),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RemoveConstraint(model_name='budgetwindow', name='budget_window_once'),
        migrations.RenameField(model_name='budgetwindow', old_name='scope', new_name='level'),
        migrations.AddField(
            model_name='budgetwindow', name='model',
            field=models.TextField(default='', db_default=''),
        ),
        migrations.AddField(
            model_name='budgetwindow', name='block_nano',
            field=models.BigIntegerField(default=1, db_default=1),
        ),
        migrations.AddField(
            model_name='budgetwindow', name='granted_at',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='budgetwindow', name='revision',
            field=models.BigIntegerField(default=0, db_default=0),
        ),
        migrations.AddConstraint(
            model_name='budgetwindow',
            constraint=models.UniqueConstraint(
                fields=('tenant', 'level', 'scope_id', 'model', 'window'), name='budget_window_once'
            ),
        ),
        migrations.CreateModel(
            name='BudgetEpoch',
            fields=[
                ('pk', models.CompositePrimaryKey('tenant_id', 'epoch', blank=True, editable=False, primary_key=True, serialize=False)),
                ('epoch', models.TextField()),
                ('first_seen_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('accounted_at', models.DateTimeField(null=True)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'budget_epoch',
            },
        ),
        migrations.CreateModel(
            name='BudgetGrant',
            fields=[
                ('id', models.UUIDField(primary_key=True, serialize=False)),
                ('level', models.CharField(max_length=16)),
                ('scope_id', models.UUIDField()),
                ('model', models.TextField(default='')),
                ('window', models.CharField(max_length=16)),
                ('epoch', models.TextField()),
                ('amount_nano', models.BigIntegerField()),
                ('granted_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('credited', models.BooleanField(default=False)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'budget_grant',
                'indexes': [
                    models.Index(fields=['tenant', 'level', 'scope_id', 'model', 'window', 'epoch'], name='budget_grant_window'),
                    models.Index(fields=['granted_at'], condition=models.Q(('credited', False)), name='budget_grant_uncredited'),
                ],
                'constraints': [models.CheckConstraint(condition=models.Q(('amount_nano__gte', 0)), name='budget_grant_not_negative')],
            },
        ),
        migrations.RunSQL(ISOLATED, migrations.RunSQL.noop),
        migrations.RunSQL(TAKE_BUDGET, "DROP FUNCTION take_budget"),
    ]
