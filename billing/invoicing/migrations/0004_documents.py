"""What an invoice says beside its lines: buyer and seller, taxes, credit notes, what it counted.

Columns have their defaults in the database, so that what still runs the code before this one can
close a period and finalise an invoice meanwhile: without taxes, as before.
"""

import django.db.models.deletion
import django.db.models.expressions
import meterplane.kernel.clock
import meterplane.kernel.ids
from django.db import migrations, models

ISOLATED = """
SELECT meterplane_isolate('assigned_tax');
SELECT meterplane_isolate('tax_exemption');
SELECT meterplane_isolate('billing_details');
SELECT meterplane_isolate('invoice_tax');
SELECT meterplane_isolate('credit_note_series');
SELECT meterplane_isolate('credit_note');
SELECT meterplane_isolate('credit_note_line');
SELECT meterplane_isolate('credit_note_tax');
ALTER TABLE invoice_tax ADD CONSTRAINT invoice_tax_invoice_same_tenant
  FOREIGN KEY (tenant_id, invoice_id) REFERENCES invoice (tenant_id, id);
ALTER TABLE credit_note ADD CONSTRAINT credit_note_invoice_same_tenant
  FOREIGN KEY (tenant_id, invoice_id) REFERENCES invoice (tenant_id, id);
ALTER TABLE credit_note_line
  ADD CONSTRAINT credit_note_line_note_same_tenant
    FOREIGN KEY (tenant_id, note_id) REFERENCES credit_note (tenant_id, id),
  ADD CONSTRAINT credit_note_line_line_same_tenant
    FOREIGN KEY (tenant_id, line_id) REFERENCES invoice_line (tenant_id, id);
ALTER TABLE credit_note_tax
  ADD CONSTRAINT credit_note_tax_note_same_tenant
    FOREIGN KEY (tenant_id, note_id) REFERENCES credit_note (tenant_id, id),
  ADD CONSTRAINT credit_note_tax_tax_same_tenant
    FOREIGN KEY (tenant_id, tax_id) REFERENCES invoice_tax (tenant_id, id);
-- Rates are the operator's, for every organisation the same.
REVOKE INSERT, UPDATE, DELETE ON tax_rate FROM meterplane_app;
REVOKE DELETE ON tax_rate FROM meterplane_system;
"""

GUARDED = """
CREATE TRIGGER invoice_tax_written_once BEFORE UPDATE OR DELETE ON invoice_tax
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER credit_note_written_once BEFORE UPDATE OR DELETE ON credit_note
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER credit_note_line_written_once BEFORE UPDATE OR DELETE ON credit_note_line
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER credit_note_tax_written_once BEFORE UPDATE OR DELETE ON credit_note_tax
  FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE FUNCTION tax_rate_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF (NEW.id, NEW.name, NEW.percentage, NEW.mode, NEW.country)
     IS DISTINCT FROM (OLD.id, OLD.name, OLD.percentage, OLD.mode, OLD.country) THEN
    RAISE EXCEPTION 'a tax rate never changes; retire it and make another'
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER tax_rate_guard BEFORE UPDATE ON tax_rate
  FOR EACH ROW EXECUTE FUNCTION tax_rate_guard();

CREATE FUNCTION invoice_document_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF (NEW.tax_exclusive_minor, NEW.tax_inclusive_minor, NEW.tax_note)
     IS DISTINCT FROM (OLD.tax_exclusive_minor, OLD.tax_inclusive_minor, OLD.tax_note) THEN
    RAISE EXCEPTION 'what invoice % owes cannot change', OLD.id
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF OLD.number IS NOT NULL AND (NEW.buyer, NEW.seller) IS DISTINCT FROM (OLD.buyer, OLD.seller)
  THEN
    RAISE EXCEPTION 'who invoice % is made out to cannot change', OLD.number
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER invoice_document_guard BEFORE UPDATE ON invoice
  FOR EACH ROW EXECUTE FUNCTION invoice_document_guard();

CREATE FUNCTION credit_note_guard() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $body$
DECLARE
  credited invoice%ROWTYPE;
BEGIN
  SELECT * INTO credited FROM invoice WHERE id = NEW.invoice_id FOR UPDATE;
  IF credited.status NOT IN ('open', 'paid') THEN
    RAISE EXCEPTION 'an invoice that is % has no credit notes', credited.status
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF credited.currency <> NEW.currency THEN
    RAISE EXCEPTION 'invoice % is in %', credited.number, credited.currency
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.total_minor + (SELECT coalesce(sum(total_minor), 0) FROM credit_note
                         WHERE invoice_id = NEW.invoice_id) > credited.total_minor THEN
    RAISE EXCEPTION 'invoice % is not credited beyond its total of %', credited.number,
      credited.total_minor USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER credit_note_guard BEFORE INSERT ON credit_note
  FOR EACH ROW EXECUTE FUNCTION credit_note_guard();

-- The invoice's row is locked by the trigger above: two notes of one invoice follow each other.
CREATE FUNCTION credit_note_line_guard() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $body$
DECLARE
  billed invoice_line%ROWTYPE;
  given numeric;
  units numeric;
BEGIN
  SELECT l.* INTO billed FROM invoice_line l JOIN credit_note n ON n.invoice_id = l.invoice_id
   WHERE l.id = NEW.line_id AND n.id = NEW.note_id;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'line % is of another invoice', NEW.line_id USING ERRCODE = 'restrict_violation';
  END IF;
  SELECT coalesce(sum(amount_minor), 0) + NEW.amount_minor,
         coalesce(sum(quantity), 0) + coalesce(NEW.quantity, 0)
    INTO given, units FROM credit_note_line WHERE line_id = NEW.line_id;
  IF sign(NEW.amount_minor) <> sign(billed.amount_minor) OR abs(given) > abs(billed.amount_minor)
     OR units > greatest(billed.quantity, 0) THEN
    RAISE EXCEPTION 'line % is not credited beyond its amount of %', billed.id, billed.amount_minor
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER credit_note_line_guard BEFORE INSERT ON credit_note_line
  FOR EACH ROW EXECUTE FUNCTION credit_note_line_guard();

-- Checked when the transaction commits: lines add up to the subtotal, taxes to what is said of them.
CREATE OR REPLACE FUNCTION invoice_adds_up() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $body$
DECLARE
  touched uuid := CASE TG_TABLE_NAME WHEN 'invoice' THEN (to_jsonb(NEW) ->> 'id')::uuid
                  ELSE (to_jsonb(NEW) ->> 'invoice_id')::uuid END;
  owed record;
  lines numeric;
  exclusive numeric;
  inclusive numeric;
  door text := current_setting('app.tenant_id', true);
BEGIN
  -- The tenant's door is closed again by the time a deferred trigger runs.
  PERFORM set_config('app.tenant_id', NEW.tenant_id::text, true);
  SELECT total_minor, subtotal_minor, tax_exclusive_minor, tax_inclusive_minor
    INTO owed FROM invoice WHERE id = touched;
  SELECT coalesce(sum(amount_minor), 0) INTO lines FROM invoice_line WHERE invoice_id = touched;
  SELECT coalesce(sum(amount_minor) FILTER (WHERE mode = 'exclusive'), 0),
         coalesce(sum(amount_minor) FILTER (WHERE mode = 'inclusive'), 0)
    INTO exclusive, inclusive FROM invoice_tax WHERE invoice_id = touched;
  PERFORM set_config('app.tenant_id', coalesce(door, ''), true);
  IF owed.subtotal_minor IS DISTINCT FROM lines THEN
    RAISE EXCEPTION 'the lines of invoice % add up to %, its total is %', touched, lines,
      owed.subtotal_minor USING ERRCODE = 'restrict_violation';
  END IF;
  IF (owed.tax_exclusive_minor, owed.tax_inclusive_minor) IS DISTINCT FROM (exclusive, inclusive)
  THEN
    RAISE EXCEPTION 'the taxes of invoice % add up to % and %, it says % and %', touched, exclusive,
      inclusive, owed.tax_exclusive_minor, owed.tax_inclusive_minor
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NULL;
END $body$;
CREATE CONSTRAINT TRIGGER invoice_tax_adds_up AFTER INSERT ON invoice_tax
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION invoice_adds_up();

CREATE FUNCTION credit_note_adds_up() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $body$
DECLARE
  touched uuid := CASE TG_TABLE_NAME WHEN 'credit_note' THEN (to_jsonb(NEW) ->> 'id')::uuid
                  ELSE (to_jsonb(NEW) ->> 'note_id')::uuid END;
  said record;
  lines numeric;
  exclusive numeric;
  inclusive numeric;
  door text := current_setting('app.tenant_id', true);
BEGIN
  PERFORM set_config('app.tenant_id', NEW.tenant_id::text, true);
  SELECT subtotal_minor, tax_exclusive_minor, tax_inclusive_minor
    INTO said FROM credit_note WHERE id = touched;
  SELECT coalesce(sum(amount_minor), 0) INTO lines FROM credit_note_line WHERE note_id = touched;
  SELECT coalesce(sum(c.amount_minor) FILTER (WHERE t.mode = 'exclusive'), 0),
         coalesce(sum(c.amount_minor) FILTER (WHERE t.mode = 'inclusive'), 0)
    INTO exclusive, inclusive
    FROM credit_note_tax c JOIN invoice_tax t ON t.id = c.tax_id WHERE c.note_id = touched;
  PERFORM set_config('app.tenant_id', coalesce(door, ''), true);
  IF (said.subtotal_minor, said.tax_exclusive_minor, said.tax_inclusive_minor)
     IS DISTINCT FROM (lines, exclusive, inclusive) THEN
    RAISE EXCEPTION 'credit note % does not add up', touched USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NULL;
END $body$;
CREATE CONSTRAINT TRIGGER credit_note_adds_up AFTER INSERT ON credit_note
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION credit_note_adds_up();
CREATE CONSTRAINT TRIGGER credit_note_line_adds_up AFTER INSERT ON credit_note_line
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION credit_note_adds_up();
CREATE CONSTRAINT TRIGGER credit_note_tax_adds_up AFTER INSERT ON credit_note_tax
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION credit_note_adds_up();
"""

# As the first migration made it: lines add up to the total.
ADDED_UP_BEFORE = """
CREATE OR REPLACE FUNCTION invoice_adds_up() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
  touched uuid := CASE TG_TABLE_NAME WHEN 'invoice' THEN (to_jsonb(NEW) ->> 'id')::uuid
                  ELSE (to_jsonb(NEW) ->> 'invoice_id')::uuid END;
  owed bigint;
  added_up bigint;
  door text := current_setting('app.tenant_id', true);
BEGIN
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
"""
UNDO = (
    "".join(
        f"DROP TRIGGER {trigger} ON {table};"
        for table, triggers in {
            "credit_note_tax": ["credit_note_tax_adds_up", "credit_note_tax_written_once"],
            "credit_note_line": [
                "credit_note_line_adds_up",
                "credit_note_line_guard",
                "credit_note_line_written_once",
            ],
            "credit_note": [
                "credit_note_adds_up",
                "credit_note_guard",
                "credit_note_written_once",
            ],
            "invoice_tax": ["invoice_tax_adds_up", "invoice_tax_written_once"],
            "invoice": ["invoice_document_guard"],
            "tax_rate": ["tax_rate_guard"],
        }.items()
        for trigger in triggers
    )
    + "DROP FUNCTION credit_note_adds_up(), credit_note_line_guard(), credit_note_guard(),"
    " invoice_document_guard(), tax_rate_guard();" + ADDED_UP_BEFORE
)


class Migration(migrations.Migration):

    dependencies = [("invoicing", "0003_rated_lines"), ("metering", "0015_arrivals")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.CreateModel(
            name='AssignedTax',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
            ],
            options={
                'db_table': 'assigned_tax',
            },
        ),
        migrations.CreateModel(
            name='BillingDetails',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(blank=True, default='', max_length=120)),
                ('address', models.CharField(blank=True, default='', max_length=606)),
                ('country', models.CharField(blank=True, default='', max_length=2)),
                ('tax_ids', models.JSONField(blank=True, default=list)),
                ('purchase_order', models.CharField(blank=True, default='', max_length=40)),
                ('changed_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
            ],
            options={
                'db_table': 'billing_details',
            },
        ),
        migrations.CreateModel(
            name='CreditNote',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('number', models.CharField(max_length=60)),
                ('reason', models.CharField(choices=[('billing_error', 'Billing error'), ('service_failure', 'Service failure'), ('duplicate', 'Duplicate'), ('goodwill', 'Goodwill'), ('other', 'Other')], max_length=16)),
                ('memo', models.CharField(blank=True, default='', max_length=400)),
                ('effect', models.CharField(choices=[('lowers_due', 'Lowers what is due'), ('refund', 'To be refunded'), ('balance', 'Kept as balance')], max_length=12)),
                ('currency', models.CharField(max_length=3)),
                ('subtotal_minor', models.BigIntegerField()),
                ('tax_exclusive_minor', models.BigIntegerField(default=0)),
                ('tax_inclusive_minor', models.BigIntegerField(default=0)),
                ('total_minor', models.BigIntegerField()),
                ('idempotency_key', models.CharField(max_length=100)),
                ('request_digest', models.CharField(max_length=64)),
                ('buyer', models.JSONField(null=True)),
                ('seller', models.JSONField(null=True)),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
            ],
            options={
                'db_table': 'credit_note',
                'ordering': ['-created_at', '-number'],
            },
        ),
        migrations.CreateModel(
            name='CreditNoteLine',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('position', models.PositiveIntegerField()),
                ('quantity', models.DecimalField(decimal_places=12, max_digits=38, null=True)),
                ('amount_minor', models.BigIntegerField()),
            ],
            options={
                'db_table': 'credit_note_line',
                'ordering': ['note', 'position'],
            },
        ),
        migrations.CreateModel(
            name='CreditNoteSeries',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('prefix', models.CharField(max_length=52, unique=True)),
                ('last_number', models.PositiveIntegerField(default=0)),
            ],
            options={
                'verbose_name_plural': 'credit note series',
                'db_table': 'credit_note_series',
            },
        ),
        migrations.CreateModel(
            name='CreditNoteTax',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('amount_minor', models.BigIntegerField()),
            ],
            options={
                'db_table': 'credit_note_tax',
                'ordering': ['note', 'tax'],
            },
        ),
        migrations.CreateModel(
            name='InvoiceTax',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('position', models.PositiveSmallIntegerField()),
                ('name', models.CharField(max_length=40)),
                ('percentage', models.DecimalField(decimal_places=4, max_digits=7)),
                ('mode', models.CharField(choices=[('exclusive', 'On top of prices'), ('inclusive', 'Included in prices')], max_length=9)),
                ('country', models.CharField(blank=True, default='', max_length=2)),
                ('taxable_minor', models.BigIntegerField(help_text='what it is a percentage of, without tax')),
                ('amount_minor', models.BigIntegerField()),
            ],
            options={
                'db_table': 'invoice_tax',
                'ordering': ['invoice', 'position'],
            },
        ),
        migrations.CreateModel(
            name='TaxExemption',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('exempt', 'Exempt'), ('reverse_charge', 'Reverse charge')], max_length=16)),
                ('reason', models.CharField(max_length=200)),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
            ],
            options={
                'db_table': 'tax_exemption',
            },
        ),
        migrations.CreateModel(
            name='TaxRate',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=40)),
                ('percentage', models.DecimalField(decimal_places=4, max_digits=7)),
                ('mode', models.CharField(choices=[('exclusive', 'On top of prices'), ('inclusive', 'Included in prices')], default='exclusive', max_length=9)),
                ('country', models.CharField(blank=True, default='', max_length=2)),
                ('label', models.CharField(blank=True, default='', max_length=80)),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('retired_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'db_table': 'tax_rate',
                'ordering': ['name', 'percentage'],
            },
        ),
        migrations.AddField(
            model_name='billingperiod',
            name='usage_seen_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='billingperiod',
            name='usage_snapshot',
            field=models.TextField(blank=True, db_default='', default=''),
        ),
        migrations.AddField(
            model_name='invoice',
            name='buyer',
            field=models.JSONField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='invoice',
            name='seller',
            field=models.JSONField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='invoice',
            name='tax_exclusive_minor',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name='invoice',
            name='tax_inclusive_minor',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name='invoice',
            name='tax_note',
            field=models.CharField(blank=True, db_default='', default='', max_length=240),
        ),
        migrations.AddField(
            model_name='invoice',
            name='subtotal_minor',
            field=models.GeneratedField(db_persist=True, expression=django.db.models.expressions.CombinedExpression(models.F('total_minor'), '-', models.F('tax_exclusive_minor')), output_field=models.BigIntegerField()),
        ),
        migrations.AddConstraint(
            model_name='billingperiod',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('usage_seen_at__isnull', True), ('usage_snapshot', '')), models.Q(('usage_seen_at__isnull', False), models.Q(('usage_snapshot', ''), _negated=True)), _connector='OR'), name='period_usage_seen'),
        ),
        migrations.AddConstraint(
            model_name='invoice',
            constraint=models.CheckConstraint(condition=models.Q(('total_minor', django.db.models.expressions.CombinedExpression(models.F('subtotal_minor'), '+', models.F('tax_exclusive_minor')))), name='invoice_total_is_subtotal_and_tax'),
        ),
        migrations.AddField(
            model_name='assignedtax',
            name='tenant',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation'),
        ),
        migrations.AddField(
            model_name='billingdetails',
            name='tenant',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation'),
        ),
        migrations.AddField(
            model_name='creditnote',
            name='invoice',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='credit_notes', to='invoicing.invoice'),
        ),
        migrations.AddField(
            model_name='creditnote',
            name='tenant',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation'),
        ),
        migrations.AddField(
            model_name='creditnoteline',
            name='line',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='invoicing.invoiceline'),
        ),
        migrations.AddField(
            model_name='creditnoteline',
            name='note',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='lines', to='invoicing.creditnote'),
        ),
        migrations.AddField(
            model_name='creditnoteline',
            name='tenant',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation'),
        ),
        migrations.AddField(
            model_name='creditnoteseries',
            name='tenant',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation'),
        ),
        migrations.AddField(
            model_name='creditnotetax',
            name='note',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='taxes', to='invoicing.creditnote'),
        ),
        migrations.AddField(
            model_name='creditnotetax',
            name='tenant',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation'),
        ),
        migrations.AddField(
            model_name='invoicetax',
            name='invoice',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='taxes', to='invoicing.invoice'),
        ),
        migrations.AddField(
            model_name='invoicetax',
            name='tenant',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation'),
        ),
        migrations.AddField(
            model_name='creditnotetax',
            name='tax',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='invoicing.invoicetax'),
        ),
        migrations.AddField(
            model_name='taxexemption',
            name='tenant',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation'),
        ),
        migrations.AddConstraint(
            model_name='taxrate',
            constraint=models.CheckConstraint(condition=models.Q(('percentage__gte', 0), ('percentage__lte', 100)), name='tax_rate_percentage'),
        ),
        migrations.AddConstraint(
            model_name='taxrate',
            constraint=models.CheckConstraint(condition=models.Q(('mode__in', ['exclusive', 'inclusive'])), name='tax_rate_mode_known'),
        ),
        migrations.AddConstraint(
            model_name='taxrate',
            constraint=models.CheckConstraint(condition=models.Q(('country', ''), ('country__regex', '^[A-Z]{2}$'), _connector='OR'), name='tax_rate_country_iso'),
        ),
        migrations.AddField(
            model_name='invoicetax',
            name='rate',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='invoicing.taxrate'),
        ),
        migrations.AddField(
            model_name='assignedtax',
            name='rate',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='invoicing.taxrate'),
        ),
        migrations.AddConstraint(
            model_name='billingdetails',
            constraint=models.UniqueConstraint(fields=('tenant',), name='billing_details_one'),
        ),
        migrations.AddConstraint(
            model_name='billingdetails',
            constraint=models.CheckConstraint(condition=models.Q(('country', ''), ('country__regex', '^[A-Z]{2}$'), _connector='OR'), name='billing_country_iso'),
        ),
        migrations.AddConstraint(
            model_name='creditnote',
            constraint=models.UniqueConstraint(fields=('tenant', 'number'), name='credit_note_number_once'),
        ),
        migrations.AddConstraint(
            model_name='creditnote',
            constraint=models.UniqueConstraint(fields=('tenant', 'idempotency_key'), name='credit_note_asked_once'),
        ),
        migrations.AddConstraint(
            model_name='creditnote',
            constraint=models.CheckConstraint(condition=models.Q(('total_minor', django.db.models.expressions.CombinedExpression(models.F('subtotal_minor'), '+', models.F('tax_exclusive_minor')))), name='credit_note_total_is_subtotal_and_tax'),
        ),
        migrations.AddConstraint(
            model_name='creditnote',
            constraint=models.CheckConstraint(condition=models.Q(('total_minor__gt', 0)), name='credit_note_gives_back'),
        ),
        migrations.AddConstraint(
            model_name='creditnote',
            constraint=models.CheckConstraint(condition=models.Q(('effect__in', ['lowers_due', 'refund', 'balance'])), name='credit_note_effect_known'),
        ),
        migrations.AddConstraint(
            model_name='creditnote',
            constraint=models.CheckConstraint(condition=models.Q(('reason__in', ['billing_error', 'service_failure', 'duplicate', 'goodwill', 'other'])), name='credit_note_reason_known'),
        ),
        migrations.AddConstraint(
            model_name='creditnoteline',
            constraint=models.UniqueConstraint(fields=('note', 'position'), name='credit_position_once'),
        ),
        migrations.AddConstraint(
            model_name='creditnoteline',
            constraint=models.UniqueConstraint(fields=('note', 'line'), name='credit_line_once'),
        ),
        migrations.AddConstraint(
            model_name='creditnoteline',
            constraint=models.CheckConstraint(condition=models.Q(('amount_minor', 0), _negated=True), name='credit_line_gives_back'),
        ),
        migrations.AddConstraint(
            model_name='creditnoteline',
            constraint=models.CheckConstraint(condition=models.Q(('quantity__isnull', True), ('quantity__gt', 0), _connector='OR'), name='credit_quantity_positive'),
        ),
        migrations.AddConstraint(
            model_name='creditnoteseries',
            constraint=models.UniqueConstraint(fields=('tenant',), name='credit_note_series_one'),
        ),
        migrations.AddConstraint(
            model_name='creditnotetax',
            constraint=models.UniqueConstraint(fields=('note', 'tax'), name='credit_tax_once'),
        ),
        migrations.AddConstraint(
            model_name='taxexemption',
            constraint=models.UniqueConstraint(fields=('tenant',), name='tax_exemption_one'),
        ),
        migrations.AddConstraint(
            model_name='taxexemption',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['exempt', 'reverse_charge']), models.Q(('reason', ''), _negated=True)), name='tax_exemption_said'),
        ),
        migrations.AddConstraint(
            model_name='invoicetax',
            constraint=models.UniqueConstraint(fields=('invoice', 'position'), name='tax_position_once'),
        ),
        migrations.AddConstraint(
            model_name='invoicetax',
            constraint=models.UniqueConstraint(fields=('invoice', 'rate'), name='tax_rate_once'),
        ),
        migrations.AddConstraint(
            model_name='invoicetax',
            constraint=models.CheckConstraint(condition=models.Q(('mode__in', ['exclusive', 'inclusive'])), name='invoice_tax_mode_known'),
        ),
        migrations.AddConstraint(
            model_name='assignedtax',
            constraint=models.UniqueConstraint(fields=('tenant', 'rate'), name='tax_assigned_once'),
        ),
        migrations.RunSQL(ISOLATED, migrations.RunSQL.noop),
        migrations.RunSQL(GUARDED, UNDO),
    ]
