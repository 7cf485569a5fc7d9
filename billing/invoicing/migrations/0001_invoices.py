"""Closed periods, invoices and lines, isolated by tenant and unchangeable once written."""

import django.db.models.deletion
import meterplane.kernel.clock
import meterplane.kernel.ids
from django.db import migrations, models



ISOLATED = """
SELECT meterplane_isolate('billing_period');
SELECT meterplane_isolate('invoice_series');
SELECT meterplane_isolate('invoice');
SELECT meterplane_isolate('invoice_line');
ALTER TABLE invoice ADD CONSTRAINT invoice_period_same_tenant
  FOREIGN KEY (tenant_id, period_id) REFERENCES billing_period (tenant_id, id);
ALTER TABLE invoice_line ADD CONSTRAINT invoice_line_invoice_same_tenant
  FOREIGN KEY (tenant_id, invoice_id) REFERENCES invoice (tenant_id, id);
-- A chain without gaps or overlaps: every period but the first starts where another one ends.
ALTER TABLE billing_period ADD CONSTRAINT billing_period_chain
  FOREIGN KEY (tenant_id, follows_at) REFERENCES billing_period (tenant_id, ends_at);
"""

GUARDED = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  RAISE EXCEPTION 'rows of % are written once', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $body$;
CREATE TRIGGER billing_period_written_once BEFORE UPDATE OR DELETE ON billing_period
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER invoice_line_written_once BEFORE UPDATE OR DELETE ON invoice_line
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER invoice_never_deleted BEFORE DELETE ON invoice
  FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE FUNCTION invoice_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF (NEW.id, NEW.tenant_id, NEW.period_id, NEW.period_start, NEW.period_end, NEW.currency,
      NEW.total_minor, NEW.content_hash, NEW.created_at)
     IS DISTINCT FROM
     (OLD.id, OLD.tenant_id, OLD.period_id, OLD.period_start, OLD.period_end, OLD.currency,
      OLD.total_minor, OLD.content_hash, OLD.created_at) THEN
    RAISE EXCEPTION 'what invoice % owes cannot change', OLD.id
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF OLD.number IS NOT NULL AND (NEW.number, NEW.finalised_at)
     IS DISTINCT FROM (OLD.number, OLD.finalised_at) THEN
    RAISE EXCEPTION 'invoice % has its number', OLD.number USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.status <> OLD.status AND NOT (
    (OLD.status = 'draft' AND NEW.status = 'open')
    OR (OLD.status = 'open' AND NEW.status IN ('paid', 'void', 'uncollectible'))
    OR (OLD.status = 'uncollectible' AND NEW.status IN ('paid', 'void'))
  ) THEN
    RAISE EXCEPTION 'an invoice does not go from % to %', OLD.status, NEW.status
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER invoice_guard BEFORE UPDATE ON invoice
  FOR EACH ROW EXECUTE FUNCTION invoice_guard();

-- Checked when the transaction commits: lines add up to the total, exactly.
CREATE FUNCTION invoice_adds_up() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
  touched uuid := CASE TG_TABLE_NAME WHEN 'invoice' THEN (to_jsonb(NEW) ->> 'id')::uuid
                  ELSE (to_jsonb(NEW) ->> 'invoice_id')::uuid END;
  owed bigint;
  added_up bigint;
  door text := current_setting('app.tenant_id', true);
BEGIN
  -- The tenant's door is closed again by the time a deferred trigger runs.
  PERFORM set_config('app.tenant_id', NEW.tenant_id::text, true);
  SELECT total_minor INTO owed FROM invoice WHERE id = touched;
  SELECT coalesce(sum(amount_minor), 0) INTO added_up FROM invoice_line WHERE invoice_id = touched;
  PERFORM set_config('app.tenant_id', coalesce(door, ''), true);
  IF owed IS DISTINCT FROM added_up THEN
    RAISE EXCEPTION 'the lines of invoice % add up to %, its total is %', touched, added_up, owed
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NULL;
END $body$;
CREATE CONSTRAINT TRIGGER invoice_adds_up AFTER INSERT ON invoice
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION invoice_adds_up();
CREATE CONSTRAINT TRIGGER invoice_line_adds_up AFTER INSERT ON invoice_line
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION invoice_adds_up();
"""

UNDO = """
DROP TRIGGER invoice_line_adds_up ON invoice_line;
DROP TRIGGER invoice_adds_up ON invoice;
DROP FUNCTION invoice_adds_up();
DROP TRIGGER invoice_guard ON invoice;
DROP FUNCTION invoice_guard();
DROP TRIGGER invoice_never_deleted ON invoice;
DROP TRIGGER invoice_line_written_once ON invoice_line;
DROP TRIGGER billing_period_written_once ON billing_period;
DROP FUNCTION refuse_change();
"""


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('pricing', '0001_price_books'),
        ('tenants', '0001_initial'),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.CreateModel(
            name='BillingPeriod',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('starts_at', models.DateTimeField()),
                ('ends_at', models.DateTimeField()),
                ('follows_at', models.DateTimeField(blank=True, null=True)),
                ('closed_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('content_hash', models.CharField(max_length=64)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'billing_period',
                'ordering': ['-ends_at'],
            },
        ),
        migrations.CreateModel(
            name='Invoice',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('number', models.CharField(blank=True, max_length=60, null=True)),
                ('period_start', models.DateTimeField()),
                ('period_end', models.DateTimeField()),
                ('status', models.CharField(choices=[('draft', 'Draft'), ('open', 'Open'), ('paid', 'Paid'), ('void', 'Void'), ('uncollectible', 'Uncollectible')], default='draft', max_length=16)),
                ('currency', models.CharField(max_length=3)),
                ('total_minor', models.BigIntegerField()),
                ('content_hash', models.CharField(max_length=64)),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('finalised_at', models.DateTimeField(blank=True, null=True)),
                ('paid_at', models.DateTimeField(blank=True, null=True)),
                ('hosted_url', models.URLField(blank=True, default='', max_length=500)),
                ('collection_state', models.CharField(choices=[('pending', 'To be collected'), ('awaiting_payment', 'Waiting for the customer'), ('parked', 'Parked: needs a person'), ('done', 'Done')], default='pending', max_length=20)),
                ('collection_note', models.TextField(blank=True, default='')),
                ('payment_attempts', models.PositiveIntegerField(default=0)),
                ('period', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='invoice', to='invoicing.billingperiod')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'invoice',
                'ordering': ['-period_end'],
            },
        ),
        migrations.CreateModel(
            name='InvoiceLine',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('position', models.PositiveIntegerField()),
                ('model', models.CharField(max_length=80)),
                ('meter', models.CharField(max_length=16)),
                ('description', models.CharField(max_length=400)),
                ('quantity', models.BigIntegerField()),
                ('unit_price_pico', models.BigIntegerField()),
                ('amount_minor', models.BigIntegerField()),
                ('period_start', models.DateTimeField()),
                ('period_end', models.DateTimeField()),
                ('is_late', models.BooleanField(default=False)),
                ('invoice', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='lines', to='invoicing.invoice')),
                ('price_version', models.ForeignKey(on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='pricing.pricebookversion')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'invoice_line',
                'ordering': ['invoice', 'position'],
            },
        ),
        migrations.CreateModel(
            name='InvoiceSeries',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('prefix', models.CharField(max_length=48, unique=True)),
                ('last_number', models.PositiveIntegerField(default=0)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'verbose_name_plural': 'invoice series',
                'db_table': 'invoice_series',
            },
        ),
        migrations.AddConstraint(
            model_name='billingperiod',
            constraint=models.UniqueConstraint(fields=('tenant', 'starts_at'), name='period_starts_once'),
        ),
        migrations.AddConstraint(
            model_name='billingperiod',
            constraint=models.UniqueConstraint(fields=('tenant', 'ends_at'), name='period_ends_once'),
        ),
        migrations.AddConstraint(
            model_name='billingperiod',
            constraint=models.UniqueConstraint(condition=models.Q(('follows_at__isnull', True)), fields=('tenant',), name='period_one_first'),
        ),
        migrations.AddConstraint(
            model_name='billingperiod',
            constraint=models.CheckConstraint(condition=models.Q(('ends_at__gt', models.F('starts_at'))), name='period_not_empty'),
        ),
        migrations.AddConstraint(
            model_name='billingperiod',
            constraint=models.CheckConstraint(condition=models.Q(('follows_at__isnull', True), ('follows_at', models.F('starts_at')), _connector='OR'), name='period_follows_its_predecessor'),
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.UniqueConstraint(fields=('tenant', 'number'), name='invoice_number_once'),
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.CheckConstraint(condition=models.Q(('status__in', ['draft', 'open', 'paid', 'void', 'uncollectible'])), name='invoice_status_known'),
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.CheckConstraint(condition=models.Q(('collection_state__in', ['pending', 'awaiting_payment', 'parked', 'done'])), name='invoice_collection_known'),
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.CheckConstraint(condition=models.Q(('currency__regex', '^[A-Z]{3}$')), name='invoice_currency_iso'),
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.CheckConstraint(condition=models.Q(('period_end__gt', models.F('period_start'))), name='invoice_period_not_empty'),
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('finalised_at__isnull', True), ('number__isnull', True), ('status', 'draft')), models.Q(models.Q(('status', 'draft'), _negated=True), ('finalised_at__isnull', False), ('number__isnull', False)), _connector='OR'), name='invoice_numbered_iff_finalised'),
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('paid_at__isnull', False), ('status', 'paid')), models.Q(models.Q(('status', 'paid'), _negated=True), ('paid_at__isnull', True)), _connector='OR'), name='invoice_paid_at_iff_paid'),
        ),
        migrations.AddIndex(
            model_name='invoiceline',
            index=models.Index(fields=['tenant', 'period_start', 'period_end'], name='line_by_period'),
        ),
        migrations.AddConstraint(
            model_name='invoiceline',
            constraint=models.UniqueConstraint(fields=('invoice', 'position'), name='line_position_once'),
        ),
        migrations.AddConstraint(
            model_name='invoiceline',
            constraint=models.UniqueConstraint(fields=('invoice', 'period_start', 'model', 'meter', 'price_version'), name='line_once'),
        ),
        migrations.AddConstraint(
            model_name='invoiceline',
            constraint=models.CheckConstraint(condition=models.Q(('quantity__gt', 0)), name='line_quantity_positive'),
        ),
        migrations.AddConstraint(
            model_name='invoiceline',
            constraint=models.CheckConstraint(condition=models.Q(('period_end__gt', models.F('period_start'))), name='line_period_not_empty'),
        ),
        migrations.AddConstraint(
            model_name='invoiceseries',
            constraint=models.UniqueConstraint(fields=('tenant',), name='invoice_series_one'),
        ),
        migrations.RunSQL(ISOLATED, migrations.RunSQL.noop),
        migrations.RunSQL(GUARDED, UNDO),
    ]
