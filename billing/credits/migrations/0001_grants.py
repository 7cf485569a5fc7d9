"""Credit grants and their movements: written once, isolated by tenant, never overdrawn."""

import django.contrib.postgres.fields
import django.db.models.deletion
import meterplane.kernel.clock
import meterplane.kernel.ids
from django.db import migrations, models

ISOLATED = """
SELECT meterplane_isolate('credit_recurrence');
SELECT meterplane_isolate('credit_grant');
SELECT meterplane_isolate('credit_movement');
SELECT meterplane_isolate('credit_remaining');
ALTER TABLE credit_grant ADD CONSTRAINT credit_grant_recurrence_same_tenant
  FOREIGN KEY (tenant_id, recurrence_id) REFERENCES credit_recurrence (tenant_id, id);
ALTER TABLE credit_grant ADD CONSTRAINT credit_grant_rolled_from_same_tenant
  FOREIGN KEY (tenant_id, rolled_from_id) REFERENCES credit_grant (tenant_id, id);
ALTER TABLE credit_movement ADD CONSTRAINT credit_movement_grant_same_tenant
  FOREIGN KEY (tenant_id, grant_id) REFERENCES credit_grant (tenant_id, id);
ALTER TABLE credit_remaining ADD CONSTRAINT credit_remaining_grant_same_tenant
  FOREIGN KEY (tenant_id, grant_id) REFERENCES credit_grant (tenant_id, id);
-- Deferred: what an invoice draws is known before its total, and the invoice is written with it.
ALTER TABLE credit_movement ADD CONSTRAINT credit_movement_invoice_same_tenant
  FOREIGN KEY (tenant_id, invoice_id) REFERENCES invoice (tenant_id, id)
  DEFERRABLE INITIALLY DEFERRED;
-- Of a recurrence only its end is ever changed; what remains is written by the triggers below.
REVOKE UPDATE, DELETE ON credit_grant, credit_movement, credit_recurrence
  FROM meterplane_app, meterplane_system;
GRANT UPDATE (ends_at) ON credit_recurrence TO meterplane_app, meterplane_system;
REVOKE INSERT, UPDATE, DELETE ON credit_remaining FROM meterplane_app, meterplane_system;
"""

GUARDED = """
CREATE TRIGGER credit_grant_written_once BEFORE UPDATE OR DELETE ON credit_grant
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER credit_movement_written_once BEFORE UPDATE OR DELETE ON credit_movement
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER credit_recurrence_never_deleted BEFORE DELETE ON credit_recurrence
  FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Both run as the owner of the tables: nobody else may write what remains.
CREATE FUNCTION credit_grant_opened() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $body$
BEGIN
  IF NOT EXISTS (SELECT FROM organisation WHERE id = NEW.tenant_id AND currency = NEW.currency) THEN
    RAISE EXCEPTION 'credit in % is not in the currency of organisation %',
      NEW.currency, NEW.tenant_id USING ERRCODE = 'restrict_violation';
  END IF;
  INSERT INTO credit_remaining (grant_id, tenant_id, remaining_minor)
  VALUES (NEW.id, NEW.tenant_id, NEW.amount_minor);
  RETURN NULL;
END $body$;
CREATE TRIGGER credit_grant_opened AFTER INSERT ON credit_grant
  FOR EACH ROW EXECUTE FUNCTION credit_grant_opened();

CREATE FUNCTION credit_moved() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
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
CREATE TRIGGER credit_moved AFTER INSERT ON credit_movement
  FOR EACH ROW EXECUTE FUNCTION credit_moved();

CREATE FUNCTION credit_recurrence_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF to_jsonb(NEW) - 'ends_at' IS DISTINCT FROM to_jsonb(OLD) - 'ends_at' THEN
    RAISE EXCEPTION 'of a recurrence only its end changes' USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.ends_at IS NULL OR NEW.ends_at > OLD.ends_at THEN
    RAISE EXCEPTION 'the end of a recurrence is only brought forward'
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER credit_recurrence_guard BEFORE UPDATE ON credit_recurrence
  FOR EACH ROW EXECUTE FUNCTION credit_recurrence_guard();
"""

UNDO = """
DROP TRIGGER credit_recurrence_guard ON credit_recurrence;
DROP FUNCTION credit_recurrence_guard();
DROP TRIGGER credit_moved ON credit_movement;
DROP FUNCTION credit_moved();
DROP TRIGGER credit_grant_opened ON credit_grant;
DROP FUNCTION credit_grant_opened();
DROP TRIGGER credit_recurrence_never_deleted ON credit_recurrence;
DROP TRIGGER credit_movement_written_once ON credit_movement;
DROP TRIGGER credit_grant_written_once ON credit_grant;
"""


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('tenants', '0008_plan_restrictions'),
        ('invoicing', '0001_invoices'),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.CreateModel(
            name='CreditRecurrence',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('purchased', 'Purchased'), ('promotional', 'Promotional')], max_length=16)),
                ('currency', models.CharField(max_length=3)),
                ('amount_minor', models.BigIntegerField()),
                ('priority', models.PositiveSmallIntegerField(default=50)),
                ('models_only', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=80), blank=True, default=list, size=None)),
                ('meters_only', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=64), blank=True, default=list, size=None)),
                ('starts_at', models.DateTimeField()),
                ('ends_at', models.DateTimeField(blank=True, null=True)),
                ('term_months', models.PositiveSmallIntegerField(blank=True, null=True)),
                ('rollover_max_minor', models.BigIntegerField(blank=True, null=True)),
                ('reason', models.CharField(blank=True, default='', max_length=200)),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('created_by', models.CharField(max_length=120)),
                ('idempotency_key', models.CharField(max_length=120)),
                ('request_digest', models.CharField(max_length=64)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'credit_recurrence',
                'ordering': ['-starts_at', '-id'],
            },
        ),
        migrations.CreateModel(
            name='CreditGrant',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('purchased', 'Purchased'), ('promotional', 'Promotional')], max_length=16)),
                ('currency', models.CharField(max_length=3)),
                ('amount_minor', models.BigIntegerField()),
                ('priority', models.PositiveSmallIntegerField(default=50)),
                ('effective_at', models.DateTimeField()),
                ('expires_at', models.DateTimeField(blank=True, null=True)),
                ('models_only', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=80), blank=True, default=list, size=None)),
                ('meters_only', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=64), blank=True, default=list, size=None)),
                ('rollover_max_minor', models.BigIntegerField(blank=True, null=True)),
                ('occurrence', models.PositiveIntegerField(blank=True, null=True)),
                ('reason', models.CharField(blank=True, default='', max_length=200)),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('created_by', models.CharField(max_length=120)),
                ('idempotency_key', models.CharField(max_length=120)),
                ('request_digest', models.CharField(max_length=64)),
                ('rolled_from', models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='credits.creditgrant')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
                ('recurrence', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='credits.creditrecurrence')),
            ],
            options={
                'db_table': 'credit_grant',
                'ordering': ['-created_at', '-id'],
            },
        ),
        migrations.CreateModel(
            name='CreditRemaining',
            fields=[
                ('grant', models.OneToOneField(on_delete=django.db.models.deletion.DO_NOTHING, primary_key=True, related_name='remaining', serialize=False, to='credits.creditgrant')),
                ('remaining_minor', models.BigIntegerField()),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'verbose_name_plural': 'credit remaining',
                'db_table': 'credit_remaining',
            },
        ),
        migrations.CreateModel(
            name='CreditMovement',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('drawn', 'Drawn'), ('restored', 'Restored'), ('expired', 'Expired'), ('refunded', 'Refunded'), ('rolled_over', 'Rolled over')], max_length=16)),
                ('amount_minor', models.BigIntegerField()),
                ('source_id', models.UUIDField()),
                ('invoice_id', models.UUIDField(blank=True, null=True)),
                ('position', models.PositiveIntegerField(default=1)),
                ('at', models.DateTimeField()),
                ('recorded_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('grant', models.ForeignKey(on_delete=django.db.models.deletion.DO_NOTHING, related_name='movements', to='credits.creditgrant')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'credit_movement',
                'ordering': ['-recorded_at', '-id'],
                'indexes': [models.Index(fields=['tenant', 'invoice_id'], name='credit_movement_invoice')],
                'constraints': [models.UniqueConstraint(fields=('grant', 'kind', 'source_id'), name='credit_movement_once'), models.UniqueConstraint(fields=('kind', 'source_id', 'position'), name='credit_movement_position_once'), models.CheckConstraint(condition=models.Q(models.Q(('invoice_id__isnull', False), ('kind__in', ['drawn', 'restored'])), models.Q(('invoice_id__isnull', True), ('kind__in', ['expired', 'refunded', 'rolled_over'])), _connector='OR'), name='credit_movement_kind'), models.CheckConstraint(condition=models.Q(('amount_minor__gt', 0)), name='credit_movement_positive'), models.CheckConstraint(condition=models.Q(models.Q(('kind', 'drawn'), _negated=True), ('source_id', models.F('invoice_id')), _connector='OR'), name='credit_movement_drawn_for_invoice'), models.CheckConstraint(condition=models.Q(models.Q(('kind__in', ['refunded', 'rolled_over']), _negated=True), ('source_id', models.F('grant')), _connector='OR'), name='credit_movement_once_a_grant')],
            },
        ),
        migrations.AddConstraint(
            model_name='creditrecurrence',
            constraint=models.UniqueConstraint(fields=('tenant', 'idempotency_key'), name='credit_recurrence_once'),
        ),
        migrations.AddConstraint(
            model_name='creditrecurrence',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['purchased', 'promotional'])), name='credit_recurrence_kind'),
        ),
        migrations.AddConstraint(
            model_name='creditrecurrence',
            constraint=models.CheckConstraint(condition=models.Q(('amount_minor__gt', 0)), name='credit_recurrence_positive'),
        ),
        migrations.AddConstraint(
            model_name='creditrecurrence',
            constraint=models.CheckConstraint(condition=models.Q(('priority__lte', 100)), name='credit_recurrence_priority'),
        ),
        migrations.AddConstraint(
            model_name='creditrecurrence',
            constraint=models.CheckConstraint(condition=models.Q(('ends_at__isnull', True), ('ends_at__gt', models.F('starts_at')), _connector='OR'), name='credit_recurrence_not_empty'),
        ),
        migrations.AddConstraint(
            model_name='creditrecurrence',
            constraint=models.CheckConstraint(condition=models.Q(('term_months__isnull', True), ('term_months__range', (1, 120)), _connector='OR'), name='credit_recurrence_term'),
        ),
        migrations.AddConstraint(
            model_name='creditrecurrence',
            constraint=models.CheckConstraint(condition=models.Q(('rollover_max_minor__isnull', True), models.Q(('rollover_max_minor__gt', 0), ('term_months__isnull', False)), _connector='OR'), name='credit_recurrence_rollover'),
        ),
        migrations.AddConstraint(
            model_name='creditgrant',
            constraint=models.UniqueConstraint(fields=('tenant', 'idempotency_key'), name='credit_grant_once'),
        ),
        migrations.AddConstraint(
            model_name='creditgrant',
            constraint=models.UniqueConstraint(fields=('recurrence', 'occurrence'), name='credit_grant_occurrence_once'),
        ),
        migrations.AddConstraint(
            model_name='creditgrant',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['purchased', 'promotional'])), name='credit_grant_kind'),
        ),
        migrations.AddConstraint(
            model_name='creditgrant',
            constraint=models.CheckConstraint(condition=models.Q(('currency__regex', '^[A-Z]{3}$')), name='credit_grant_currency_iso'),
        ),
        migrations.AddConstraint(
            model_name='creditgrant',
            constraint=models.CheckConstraint(condition=models.Q(('amount_minor__gt', 0)), name='credit_grant_positive'),
        ),
        migrations.AddConstraint(
            model_name='creditgrant',
            constraint=models.CheckConstraint(condition=models.Q(('priority__lte', 100)), name='credit_grant_priority'),
        ),
        migrations.AddConstraint(
            model_name='creditgrant',
            constraint=models.CheckConstraint(condition=models.Q(('expires_at__isnull', True), ('expires_at__gt', models.F('effective_at')), _connector='OR'), name='credit_grant_not_empty'),
        ),
        migrations.AddConstraint(
            model_name='creditgrant',
            constraint=models.CheckConstraint(condition=models.Q(('rollover_max_minor__isnull', True), models.Q(('expires_at__isnull', False), ('rollover_max_minor__gt', 0)), _connector='OR'), name='credit_grant_rollover'),
        ),
        migrations.AddConstraint(
            model_name='creditgrant',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('occurrence__isnull', True), ('recurrence__isnull', True)), models.Q(('occurrence__isnull', False), ('recurrence__isnull', False)), _connector='OR'), name='credit_grant_occurrence'),
        ),
        migrations.AddConstraint(
            model_name='creditremaining',
            constraint=models.CheckConstraint(condition=models.Q(('remaining_minor__gte', 0)), name='credit_remaining_not_negative'),
        ),
        migrations.RunSQL(ISOLATED, migrations.RunSQL.noop),
        migrations.RunSQL(GUARDED, UNDO),
    ]
