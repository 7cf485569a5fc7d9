"""The ledger: insert-only for everybody, balanced at commit, its balances kept by trigger."""

import django.db.models.deletion
import meterplane.kernel.clock
import meterplane.kernel.ids
from django.db import migrations, models


ISOLATED = """
SELECT meterplane_isolate('ledger_entry');
SELECT meterplane_isolate('ledger_leg');
SELECT meterplane_isolate('ledger_balance');
ALTER TABLE ledger_leg ADD CONSTRAINT ledger_leg_entry_same_tenant
  FOREIGN KEY (tenant_id, entry_id) REFERENCES ledger_entry (tenant_id, id);
-- Whoever posts does so in a tenant's door: the system's role only reads.
REVOKE UPDATE, DELETE, TRUNCATE ON ledger_entry, ledger_leg FROM meterplane_app;
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON ledger_entry, ledger_leg FROM meterplane_system;
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON ledger_balance FROM meterplane_app, meterplane_system;
"""

# Grants do not bind the owner. What is left is a superuser who sets session_replication_role.
WRITTEN_ONCE = """
CREATE FUNCTION ledger_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  RAISE EXCEPTION 'rows of % are % and nothing else', TG_TABLE_NAME,
    CASE TG_TABLE_NAME WHEN 'ledger_balance' THEN 'the sums of legs' ELSE 'written once' END
    USING ERRCODE = 'restrict_violation';
END $body$;
CREATE TRIGGER ledger_entry_written_once BEFORE UPDATE OR DELETE ON ledger_entry
  FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_entry_never_emptied BEFORE TRUNCATE ON ledger_entry
  FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_leg_written_once BEFORE UPDATE OR DELETE ON ledger_leg
  FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_leg_never_emptied BEFORE TRUNCATE ON ledger_leg
  FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
-- Depth 1 is the trigger on legs, below.
CREATE TRIGGER ledger_balance_by_trigger_only BEFORE INSERT OR UPDATE OR DELETE ON ledger_balance
  FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION ledger_refuse_change();
CREATE TRIGGER ledger_balance_never_emptied BEFORE TRUNCATE ON ledger_balance
  FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change();
"""

# These run as the owner: nobody else may write a balance, and a deferred trigger runs after the
# tenant's door has closed.
BALANCED = """
CREATE FUNCTION ledger_legs_added() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $body$
DECLARE
  stray record;
  moved record;
BEGIN
  SELECT added.entry_id, added.position, added.currency INTO stray
    FROM added LEFT JOIN ledger_entry ON ledger_entry.id = added.entry_id
   WHERE added.currency IS DISTINCT FROM ledger_entry.currency
      OR added.position NOT BETWEEN 1 AND ledger_entry.leg_count
   LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'ledger entry % has no leg % in %', stray.entry_id, stray.position,
      stray.currency USING ERRCODE = 'restrict_violation';
  END IF;
  -- In order of account, as every other statement does: two of them cannot deadlock.
  FOR moved IN
    SELECT tenant_id, currency, account, sum(amount_minor) AS amount_minor, count(*) AS legs
      FROM added GROUP BY tenant_id, currency, account ORDER BY tenant_id, currency, account
  LOOP
    -- Not one upsert: a check holds of the row it proposes, too, which is not the balance.
    INSERT INTO ledger_balance (id, tenant_id, currency, account, balance_minor, leg_count)
    VALUES (gen_random_uuid(), moved.tenant_id, moved.currency, moved.account, 0, 0)
    ON CONFLICT (tenant_id, currency, account) DO NOTHING;
    UPDATE ledger_balance
       SET balance_minor = balance_minor + moved.amount_minor,
           leg_count = leg_count + moved.legs
     WHERE tenant_id = moved.tenant_id AND currency = moved.currency AND account = moved.account;
  END LOOP;
  RETURN NULL;
END $body$;
CREATE TRIGGER ledger_legs_added AFTER INSERT ON ledger_leg
  REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION ledger_legs_added();

CREATE FUNCTION ledger_entry_adds_up() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $body$
DECLARE
  legs bigint;
  apart record;
BEGIN
  SELECT count(*) INTO legs FROM ledger_leg WHERE entry_id = NEW.id;
  IF legs <> NEW.leg_count THEN
    RAISE EXCEPTION 'ledger entry % has % legs, it says %', NEW.id, legs, NEW.leg_count
      USING ERRCODE = 'restrict_violation';
  END IF;
  SELECT currency, sum(amount_minor) AS amount_minor INTO apart
    FROM ledger_leg WHERE entry_id = NEW.id
   GROUP BY currency HAVING sum(amount_minor) <> 0 LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'debits and credits of ledger entry % are % % apart', NEW.id,
      apart.amount_minor, apart.currency USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NULL;
END $body$;
CREATE CONSTRAINT TRIGGER ledger_entry_adds_up AFTER INSERT ON ledger_entry
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger_entry_adds_up();
REVOKE EXECUTE ON FUNCTION ledger_legs_added, ledger_entry_adds_up
  FROM PUBLIC, meterplane_app, meterplane_system;
"""

UNDO = """
DROP TRIGGER ledger_entry_adds_up ON ledger_entry;
DROP TRIGGER ledger_legs_added ON ledger_leg;
DROP FUNCTION ledger_entry_adds_up(), ledger_legs_added();
DROP FUNCTION ledger_refuse_change() CASCADE;
"""


class Migration(migrations.Migration):

    initial = True

    dependencies = [('tenants', '0008_plan_restrictions')]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.CreateModel(
            name='LedgerEntry',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(max_length=64)),
                ('source_id', models.CharField(max_length=100)),
                ('currency', models.CharField(max_length=3)),
                ('leg_count', models.PositiveSmallIntegerField()),
                ('content_hash', models.CharField(max_length=64)),
                ('memo', models.CharField(blank=True, default='', max_length=200)),
                ('effective_at', models.DateTimeField()),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'verbose_name_plural': 'ledger entries',
                'db_table': 'ledger_entry',
                'ordering': ['-created_at', '-id'],
            },
        ),
        migrations.CreateModel(
            name='LedgerLeg',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('position', models.PositiveSmallIntegerField()),
                ('account', models.CharField(max_length=80)),
                ('currency', models.CharField(max_length=3)),
                ('amount_minor', models.BigIntegerField()),
                ('entry', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='legs', to='ledger.ledgerentry')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'ledger_leg',
                'ordering': ['entry', 'position'],
            },
        ),
        migrations.CreateModel(
            name='LedgerBalance',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('currency', models.CharField(max_length=3)),
                ('account', models.CharField(max_length=80)),
                ('balance_minor', models.BigIntegerField()),
                ('leg_count', models.BigIntegerField()),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'ledger_balance',
                'ordering': ['tenant', 'currency', 'account'],
                'constraints': [models.UniqueConstraint(fields=('tenant', 'currency', 'account'), name='ledger_balance_once'), models.CheckConstraint(condition=models.Q(models.Q(('account__in', ['credits:purchased', 'credits:promotional']), _negated=True), ('balance_minor__lte', 0), _connector='OR'), name='ledger_balance_credit_not_overdrawn')],
            },
        ),
        migrations.AddIndex(
            model_name='ledgerentry',
            index=models.Index(fields=['tenant', 'created_at'], name='ledger_entry_by_time'),
        ),
        migrations.AddConstraint(
            model_name='ledgerentry',
            constraint=models.UniqueConstraint(fields=('source_id', 'kind', 'tenant'), name='ledger_entry_source_once'),
        ),
        migrations.AddConstraint(
            model_name='ledgerentry',
            constraint=models.CheckConstraint(condition=models.Q(('currency__regex', '^[A-Z]{3}$')), name='ledger_entry_currency_iso'),
        ),
        migrations.AddConstraint(
            model_name='ledgerentry',
            constraint=models.CheckConstraint(condition=models.Q(('kind__regex', '^[a-z][a-z0-9_.]{0,63}$')), name='ledger_entry_kind_form'),
        ),
        migrations.AddConstraint(
            model_name='ledgerentry',
            constraint=models.CheckConstraint(condition=models.Q(('leg_count__gte', 2), ('leg_count__lte', 500)), name='ledger_entry_legs_bounded'),
        ),
        migrations.AddIndex(
            model_name='ledgerleg',
            index=models.Index(fields=['tenant', 'currency', 'account', 'entry'], name='ledger_leg_by_account'),
        ),
        migrations.AddConstraint(
            model_name='ledgerleg',
            constraint=models.UniqueConstraint(fields=('entry', 'position'), name='ledger_leg_position_once'),
        ),
        migrations.AddConstraint(
            model_name='ledgerleg',
            constraint=models.CheckConstraint(condition=models.Q(('account__regex', '^(receivable|payments|credits:purchased|credits:promotional|deferred_revenue|refunds|breakage|promotions|bad_debt|rounding|(revenue|tax):[A-Za-z0-9][A-Za-z0-9_.-]{0,63})$')), name='ledger_leg_account_known'),
        ),
        migrations.AddConstraint(
            model_name='ledgerleg',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('amount_minor', 0), _negated=True), ('amount_minor__gte', -1000000000000000), ('amount_minor__lte', 1000000000000000)), name='ledger_leg_amount_bounded'),
        ),
        migrations.RunSQL(ISOLATED + WRITTEN_ONCE + BALANCED, UNDO),
    ]
