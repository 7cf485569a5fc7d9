"""Interim invoices of an open period, their threshold, and the state between draft and open.

An interim invoice is counted within its period, follows the one before it, and is made only while
its period is open. Every invoice takes back exactly what interim ones before it billed of the same
period, lines and taxes, to the cent: what ran before this migration knows no interim invoices, and
can close periods meanwhile. It cannot open an invoice that has not been finalising; whoever tries
tries again with this code.
"""

import django.db.models.deletion
import meterplane.kernel.clock
import meterplane.kernel.ids
from django.db import migrations, models

ISOLATED = """
SELECT meterplane_isolate('interim_threshold');
ALTER TABLE invoice_line ADD CONSTRAINT invoice_line_interim_same_tenant
  FOREIGN KEY (tenant_id, interim_id) REFERENCES invoice (tenant_id, id);
ALTER TABLE invoice_tax ADD CONSTRAINT invoice_tax_interim_same_tenant
  FOREIGN KEY (tenant_id, interim_id) REFERENCES invoice (tenant_id, id);
"""
UNDO_ISOLATED = """
ALTER TABLE invoice_tax DROP CONSTRAINT invoice_tax_interim_same_tenant;
ALTER TABLE invoice_line DROP CONSTRAINT invoice_line_interim_same_tenant;
"""

GUARD = """
CREATE OR REPLACE FUNCTION invoice_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF (NEW.id, NEW.tenant_id, NEW.period_id, NEW.period_start, NEW.period_end, NEW.currency,
      NEW.total_minor, NEW.content_hash, NEW.created_at{own_new})
     IS DISTINCT FROM
     (OLD.id, OLD.tenant_id, OLD.period_id, OLD.period_start, OLD.period_end, OLD.currency,
      OLD.total_minor, OLD.content_hash, OLD.created_at{own_old}) THEN
    RAISE EXCEPTION 'what invoice % owes cannot change', OLD.id
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF OLD.number IS NOT NULL AND (NEW.number, NEW.finalised_at)
     IS DISTINCT FROM (OLD.number, OLD.finalised_at) THEN
    RAISE EXCEPTION 'invoice % has its number', OLD.number USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.status <> OLD.status AND NOT (
    {first_moves}
    OR (OLD.status = 'open' AND NEW.status IN ('paid', 'void', 'uncollectible'))
    OR (OLD.status = 'uncollectible' AND NEW.status IN ('paid', 'void'))
  ) THEN
    RAISE EXCEPTION 'an invoice does not go from % to %', OLD.status, NEW.status
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
"""
_OWN = ("kind", "interim_sequence", "usage_seen_at", "usage_snapshot")
GUARD_NOW = GUARD.format(
    own_new=", " + ", ".join(f"NEW.{name}" for name in _OWN),
    own_old=", " + ", ".join(f"OLD.{name}" for name in _OWN),
    first_moves="(OLD.status = 'draft' AND NEW.status = 'finalising')"
    " OR (OLD.status = 'finalising' AND NEW.status = 'open')",
)
GUARD_BEFORE = GUARD.format(
    own_new="", own_old="", first_moves="(OLD.status = 'draft' AND NEW.status = 'open')"
)

INTERIMS = """
CREATE FUNCTION invoice_interim_guard() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $body$
DECLARE
  before record;
BEGIN
  SELECT count(*) AS made, max(period_end) AS until INTO before FROM invoice
   WHERE tenant_id = NEW.tenant_id AND kind = 'interim' AND period_start = NEW.period_start;
  IF before.made <> NEW.interim_sequence - 1 OR before.until >= NEW.period_end THEN
    RAISE EXCEPTION 'interim invoice % of a period follows % others', NEW.interim_sequence,
      before.made USING ERRCODE = 'restrict_violation';
  END IF;
  IF EXISTS (SELECT FROM billing_period WHERE tenant_id = NEW.tenant_id
                                          AND ends_at > NEW.period_start) THEN
    RAISE EXCEPTION 'the period of interim invoice % is closed', NEW.id
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER invoice_interim_guard BEFORE INSERT ON invoice
  FOR EACH ROW WHEN (NEW.kind = 'interim') EXECUTE FUNCTION invoice_interim_guard();

-- Checked when the transaction commits: of each interim invoice before it, an invoice takes back
-- what its lines (but for credit, which stays drawn) and each of its taxes are.
CREATE FUNCTION invoice_takes_interims_back() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $body$
DECLARE
  touched uuid := CASE TG_TABLE_NAME WHEN 'invoice' THEN (to_jsonb(NEW) ->> 'id')::uuid
                  ELSE (to_jsonb(NEW) ->> 'invoice_id')::uuid END;
  taking invoice%ROWTYPE;
  wrong uuid;
  door text := current_setting('app.tenant_id', true);
BEGIN
  PERFORM set_config('app.tenant_id', NEW.tenant_id::text, true);
  SELECT * INTO taking FROM invoice WHERE id = touched;
  WITH interim AS (
    SELECT id FROM invoice
     WHERE tenant_id = NEW.tenant_id AND kind = 'interim' AND period_start = taking.period_start
       AND interim_sequence < coalesce(taking.interim_sequence, 32767)
  ), billed AS (
    SELECT l.invoice_id AS interim_id, NULL::uuid AS rate_id, sum(l.amount_minor) AS amount
      FROM invoice_line l JOIN interim ON interim.id = l.invoice_id
     WHERE l.kind <> 'credit' GROUP BY 1
    UNION ALL
    SELECT t.invoice_id, t.rate_id, sum(t.amount_minor)
      FROM invoice_tax t JOIN interim ON interim.id = t.invoice_id GROUP BY 1, 2
  ), taken AS (
    SELECT interim_id, NULL::uuid AS rate_id, sum(amount_minor) AS amount
      FROM invoice_line WHERE invoice_id = touched AND kind = 'interim' GROUP BY 1
    UNION ALL
    SELECT interim_id, rate_id, sum(amount_minor)
      FROM invoice_tax WHERE invoice_id = touched AND interim_id IS NOT NULL GROUP BY 1, 2
  )
  SELECT coalesce(billed.interim_id, taken.interim_id) INTO wrong
    FROM billed FULL JOIN taken
      ON taken.interim_id = billed.interim_id
     AND coalesce(taken.rate_id, taken.interim_id) = coalesce(billed.rate_id, billed.interim_id)
   WHERE coalesce(billed.amount, 0) <> -coalesce(taken.amount, 0)
   LIMIT 1;
  PERFORM set_config('app.tenant_id', coalesce(door, ''), true);
  IF wrong IS NOT NULL THEN
    RAISE EXCEPTION 'invoice % does not take back what interim invoice % billed', touched, wrong
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NULL;
END $body$;
CREATE CONSTRAINT TRIGGER invoice_takes_interims_back AFTER INSERT ON invoice
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION invoice_takes_interims_back();
CREATE CONSTRAINT TRIGGER invoice_line_takes_interim_back AFTER INSERT ON invoice_line
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.interim_id IS NOT NULL)
  EXECUTE FUNCTION invoice_takes_interims_back();
CREATE CONSTRAINT TRIGGER invoice_tax_takes_interim_back AFTER INSERT ON invoice_tax
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.interim_id IS NOT NULL)
  EXECUTE FUNCTION invoice_takes_interims_back();

-- A period that has interim invoices has one of its own, and ends after them.
CREATE FUNCTION billing_period_takes_interims() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $body$
DECLARE
  last_until timestamptz;
  has_invoice boolean;
  door text := current_setting('app.tenant_id', true);
BEGIN
  PERFORM set_config('app.tenant_id', NEW.tenant_id::text, true);
  SELECT max(period_end) INTO last_until FROM invoice
   WHERE tenant_id = NEW.tenant_id AND kind = 'interim'
     AND period_start >= NEW.starts_at AND period_start < NEW.ends_at;
  SELECT EXISTS (SELECT FROM invoice WHERE period_id = NEW.id) INTO has_invoice;
  PERFORM set_config('app.tenant_id', coalesce(door, ''), true);
  IF last_until IS NOT NULL AND (last_until >= NEW.ends_at OR NOT has_invoice) THEN
    RAISE EXCEPTION 'period % has interim invoices up to %', NEW.id, last_until
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NULL;
END $body$;
CREATE CONSTRAINT TRIGGER billing_period_takes_interims AFTER INSERT ON billing_period
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_period_takes_interims();
"""
UNDO_INTERIMS = """
DROP TRIGGER billing_period_takes_interims ON billing_period;
DROP TRIGGER invoice_tax_takes_interim_back ON invoice_tax;
DROP TRIGGER invoice_line_takes_interim_back ON invoice_line;
DROP TRIGGER invoice_takes_interims_back ON invoice;
DROP TRIGGER invoice_interim_guard ON invoice;
DROP FUNCTION billing_period_takes_interims(), invoice_takes_interims_back(), invoice_interim_guard();
"""


class Migration(migrations.Migration):

    dependencies = [("invoicing", "0005_credit_lines")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.CreateModel(
            name='InterimThreshold',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('amount_minor', models.BigIntegerField(null=True)),
                ('changed_by', models.CharField(max_length=120)),
                ('changed_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
            ],
            options={
                'db_table': 'interim_threshold',
            },
        ),
        migrations.RemoveConstraint(
            model_name='invoice',
            name='invoice_status_known',
        ),
        migrations.RemoveConstraint(
            model_name='invoice',
            name='invoice_numbered_iff_finalised',
        ),
        migrations.RemoveConstraint(
            model_name='invoiceline',
            name='line_once',
        ),
        migrations.RemoveConstraint(
            model_name='invoiceline',
            name='line_kind_known',
        ),
        migrations.RemoveConstraint(
            model_name='invoiceline',
            name='line_of_a_contract',
        ),
        migrations.RemoveConstraint(
            model_name='invoicetax',
            name='tax_rate_once',
        ),
        migrations.AddField(
            model_name='invoice',
            name='interim_sequence',
            field=models.PositiveSmallIntegerField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='invoice',
            name='kind',
            field=models.CharField(choices=[('period', 'Of a period'), ('interim', 'Interim')], db_default='period', default='period', max_length=8),
        ),
        migrations.AddField(
            model_name='invoice',
            name='usage_seen_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='invoice',
            name='usage_snapshot',
            field=models.TextField(blank=True, db_default='', default=''),
        ),
        migrations.AddField(
            model_name='invoiceline',
            name='interim_id',
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name='invoicetax',
            name='interim_id',
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name='invoicetax',
            name='note',
            field=models.CharField(blank=True, db_default='', default='', max_length=100),
        ),
        migrations.AlterField(
            model_name='invoice',
            name='period',
            field=models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='invoice', to='invoicing.billingperiod'),
        ),
        migrations.AlterField(
            model_name='invoice',
            name='status',
            field=models.CharField(choices=[('draft', 'Draft'), ('finalising', 'Finalising'), ('open', 'Open'), ('paid', 'Paid'), ('void', 'Void'), ('uncollectible', 'Uncollectible')], default='draft', max_length=16),
        ),
        migrations.AlterField(
            model_name='invoiceline',
            name='kind',
            field=models.CharField(choices=[('usage', 'Usage'), ('adjustment', 'Adjustment'), ('discount', 'Discount'), ('maximum', 'Maximum spend'), ('minimum', 'Minimum spend'), ('commitment', 'Commitment'), ('credit', 'Credit'), ('interim', 'Already invoiced')], db_default='usage', default='usage', max_length=16),
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.CheckConstraint(condition=models.Q(('status__in', ['draft', 'finalising', 'open', 'paid', 'void', 'uncollectible'])), name='invoice_status_known'),
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('finalised_at__isnull', True), ('number__isnull', True), ('status__in', ['draft', 'finalising'])), models.Q(models.Q(('status__in', ['draft', 'finalising']), _negated=True), ('finalised_at__isnull', False), ('number__isnull', False)), _connector='OR'), name='invoice_numbered_iff_finalised'),
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.UniqueConstraint(condition=models.Q(('kind', 'interim')), fields=('tenant', 'period_start', 'interim_sequence'), name='invoice_interim_once'),
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('interim_sequence__isnull', True), ('kind', 'period'), ('period__isnull', False), ('usage_seen_at__isnull', True), ('usage_snapshot', '')), models.Q(('interim_sequence__gte', 1), ('interim_sequence__lte', 30), ('kind', 'interim'), ('period__isnull', True), ('usage_seen_at__isnull', False), models.Q(('usage_snapshot', ''), _negated=True)), _connector='OR'), name='invoice_of_a_period_or_interim'),
        ),
        migrations.AddConstraint(
            model_name='invoiceline',
            constraint=models.UniqueConstraint(fields=('invoice', 'period_start', 'kind', 'model', 'service_tier', 'meter', 'price_version', 'entry_id', 'contract_id', 'credit_grant_id', 'interim_id'), name='line_once', nulls_distinct=False),
        ),
        migrations.AddConstraint(
            model_name='invoiceline',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('amount_minor__lt', 0), ('interim_id__isnull', False), ('kind', 'interim'), ('quantity', 0)), models.Q(models.Q(('kind', 'interim'), _negated=True), ('interim_id__isnull', True)), _connector='OR'), name='line_of_an_interim'),
        ),
        migrations.AddConstraint(
            model_name='invoiceline',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['usage', 'adjustment', 'discount', 'maximum', 'minimum', 'commitment', 'credit', 'interim'])), name='line_kind_known'),
        ),
        migrations.AddConstraint(
            model_name='invoiceline',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['usage', 'adjustment', 'credit', 'interim']), models.Q(('contract_id__isnull', False), ('quantity', 0), ('unit_price_pico__isnull', True)), _connector='OR'), name='line_of_a_contract'),
        ),
        migrations.AddConstraint(
            model_name='invoicetax',
            constraint=models.UniqueConstraint(fields=('invoice', 'rate', 'interim_id'), name='tax_rate_once', nulls_distinct=False),
        ),
        migrations.AddConstraint(
            model_name='invoicetax',
            constraint=models.CheckConstraint(condition=models.Q(('interim_id__isnull', True), models.Q(('note', ''), _negated=True), _connector='OR'), name='tax_of_an_interim_noted'),
        ),
        migrations.AddField(
            model_name='interimthreshold',
            name='tenant',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation'),
        ),
        migrations.AddConstraint(
            model_name='interimthreshold',
            constraint=models.UniqueConstraint(fields=('tenant',), name='interim_threshold_one'),
        ),
        migrations.AddConstraint(
            model_name='interimthreshold',
            constraint=models.CheckConstraint(condition=models.Q(('amount_minor__isnull', True), ('amount_minor__gt', 0), _connector='OR'), name='interim_threshold_positive'),
        ),
        migrations.RunSQL(ISOLATED, UNDO_ISOLATED),
        migrations.RunSQL(GUARD_NOW, GUARD_BEFORE),
        migrations.RunSQL(INTERIMS, UNDO_INTERIMS),
    ]
