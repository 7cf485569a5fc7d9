"""What is done when an invoice is not paid, how invoices are to be paid, and payments by hand."""

import django.db.models.deletion
import meterplane.kernel.clock
import meterplane.kernel.ids
from django.db import migrations, models

ISOLATED = """
SELECT meterplane_isolate('collection_terms');
SELECT meterplane_isolate('invoice_terms');
SELECT meterplane_isolate('recorded_payment');
SELECT meterplane_isolate('dunning_override');
SELECT meterplane_isolate('dunning_case');
SELECT meterplane_isolate('dunning_step');
SELECT meterplane_isolate('dunning_suspension');
ALTER TABLE invoice_terms ADD CONSTRAINT invoice_terms_invoice_same_tenant
  FOREIGN KEY (tenant_id, invoice_id) REFERENCES invoice (tenant_id, id);
ALTER TABLE recorded_payment
  ADD CONSTRAINT recorded_payment_invoice_same_tenant
    FOREIGN KEY (tenant_id, invoice_id) REFERENCES invoice (tenant_id, id),
  ADD CONSTRAINT recorded_payment_taken_back_same_tenant
    FOREIGN KEY (tenant_id, takes_back_id) REFERENCES recorded_payment (tenant_id, id);
ALTER TABLE dunning_case ADD CONSTRAINT dunning_case_invoice_same_tenant
  FOREIGN KEY (tenant_id, invoice_id) REFERENCES invoice (tenant_id, id);
ALTER TABLE dunning_step ADD CONSTRAINT dunning_step_invoice_same_tenant
  FOREIGN KEY (tenant_id, invoice_id) REFERENCES invoice (tenant_id, id);
-- A customer's door reads the installation's policy; operators change it.
REVOKE INSERT, UPDATE, DELETE ON dunning_policy FROM meterplane_app;
-- How an invoice is paid stays, and what was recorded of its payments.
REVOKE UPDATE, DELETE, TRUNCATE ON invoice_terms, recorded_payment
  FROM meterplane_app, meterplane_system;
REVOKE DELETE, TRUNCATE ON dunning_case, dunning_step FROM meterplane_app, meterplane_system;

CREATE FUNCTION dunning_step_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF OLD.state = 'done' OR (NEW.id, NEW.tenant_id, NEW.invoice_id, NEW.step, NEW.kind)
     IS DISTINCT FROM (OLD.id, OLD.tenant_id, OLD.invoice_id, OLD.step, OLD.kind) THEN
    RAISE EXCEPTION 'dunning step % of invoice % is %', OLD.step, OLD.invoice_id, OLD.state
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER dunning_step_guard BEFORE UPDATE ON dunning_step
  FOR EACH ROW EXECUTE FUNCTION dunning_step_guard();

-- Taken back is the whole of a payment, of the same invoice.
CREATE FUNCTION recorded_payment_guard() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $body$
BEGIN
  IF NOT EXISTS (
    SELECT FROM recorded_payment paid
     WHERE paid.id = NEW.takes_back_id AND paid.invoice_id = NEW.invoice_id
       AND paid.amount_minor = -NEW.amount_minor AND paid.is_recovery = NEW.is_recovery
  ) THEN
    RAISE EXCEPTION 'payment % is not of this invoice and amount', NEW.takes_back_id
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER recorded_payment_guard BEFORE INSERT ON recorded_payment
  FOR EACH ROW WHEN (NEW.takes_back_id IS NOT NULL)
  EXECUTE FUNCTION recorded_payment_guard();
"""
UNDO = """
DROP TRIGGER recorded_payment_guard ON recorded_payment;
DROP FUNCTION recorded_payment_guard();
DROP TRIGGER dunning_step_guard ON dunning_step;
DROP FUNCTION dunning_step_guard();
"""


class Migration(migrations.Migration):

    dependencies = [("payments", "0008_carried"), ("invoicing", "0012_paid_in_parts")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.CreateModel(
            name='CollectionTerms',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('method', models.CharField(choices=[('charge_automatically', 'Charge automatically'), ('send_invoice', 'Send an invoice to pay online'), ('manual', 'Manual: by bank transfer')], default='charge_automatically', max_length=20)),
                ('days_until_due', models.PositiveSmallIntegerField(default=14)),
                ('changed_by', models.CharField(max_length=120)),
                ('changed_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
            ],
            options={
                'db_table': 'collection_terms',
            },
        ),
        migrations.CreateModel(
            name='DunningCase',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('overdue_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('closed_at', models.DateTimeField(blank=True, null=True)),
                ('looked_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
            ],
            options={
                'db_table': 'dunning_case',
                'ordering': ['overdue_at'],
            },
        ),
        migrations.CreateModel(
            name='DunningOverride',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('document', models.JSONField()),
                ('changed_by', models.CharField(max_length=120)),
                ('changed_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
            ],
            options={
                'db_table': 'dunning_override',
            },
        ),
        migrations.CreateModel(
            name='DunningPolicy',
            fields=[
                ('id', models.PositiveSmallIntegerField(default=1, editable=False, primary_key=True, serialize=False)),
                ('document', models.JSONField()),
                ('changed_by', models.CharField(max_length=120)),
                ('changed_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
            ],
            options={
                'verbose_name_plural': 'dunning policy',
                'db_table': 'dunning_policy',
            },
        ),
        migrations.CreateModel(
            name='DunningStep',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('step', models.CharField(max_length=16)),
                ('kind', models.CharField(choices=[('charge', 'Charge again'), ('suspend', 'Suspend'), ('mail', 'Mail'), ('end', 'Mark uncollectible')], max_length=8)),
                ('due_at', models.DateTimeField()),
                ('state', models.CharField(choices=[('begun', 'Begun'), ('done', 'Done')], default='begun', max_length=8)),
                ('lease_until', models.DateTimeField()),
                ('tries', models.PositiveIntegerField(default=1)),
                ('recipients', models.JSONField(default=list)),
                ('subject', models.CharField(blank=True, default='', max_length=200)),
                ('body', models.TextField(blank=True, default='')),
                ('note', models.TextField(blank=True, default='')),
                ('begun_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('done_at', models.DateTimeField(blank=True, null=True)),
            ],
            options={
                'db_table': 'dunning_step',
                'ordering': ['begun_at', 'id'],
            },
        ),
        migrations.CreateModel(
            name='DunningSuspension',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('reason', models.CharField(max_length=200)),
                ('imposed_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
            ],
            options={
                'db_table': 'dunning_suspension',
            },
        ),
        migrations.CreateModel(
            name='InvoiceTerms',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('method', models.CharField(choices=[('charge_automatically', 'Charge automatically'), ('send_invoice', 'Send an invoice to pay online'), ('manual', 'Manual: by bank transfer')], max_length=20)),
                ('days_until_due', models.PositiveSmallIntegerField()),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
            ],
            options={
                'db_table': 'invoice_terms',
            },
        ),
        migrations.CreateModel(
            name='RecordedPayment',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('amount_minor', models.BigIntegerField()),
                ('balance_minor', models.BigIntegerField(default=0)),
                ('is_recovery', models.BooleanField(default=False)),
                ('paid_on', models.DateField()),
                ('reference', models.CharField(max_length=100)),
                ('reason', models.CharField(blank=True, default='', max_length=200)),
                ('recorded_by', models.CharField(max_length=120)),
                ('recorded_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
            ],
            options={
                'db_table': 'recorded_payment',
                'ordering': ['recorded_at', 'id'],
            },
        ),
        migrations.RemoveConstraint(
            model_name='paymentstep',
            name='payment_step_belongs',
        ),
        migrations.AlterField(
            model_name='paymentstep',
            name='kind',
            field=models.CharField(choices=[('customer', 'Create the customer'), ('draft', 'Create the draft invoice'), ('lines', 'Attach the lines'), ('verify', 'Verify line by line'), ('finalise', 'Finalise'), ('send', 'Send it to the customer'), ('pay', 'Charge the customer'), ('mirror', 'Mirror the outcome'), ('void', 'Void'), ('write_off', 'Mark uncollectible'), ('checkout', 'Open a checkout'), ('charge', 'Charge for credit'), ('refund', 'Refund'), ('credit_note', 'Issue the credit note')], max_length=16),
        ),
        migrations.AddConstraint(
            model_name='paymentstep',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('kind', 'customer'), ('run__isnull', True), ('subject_id__isnull', True)), models.Q(('kind__in', ['draft', 'lines', 'verify', 'finalise', 'send', 'pay', 'mirror', 'void', 'write_off']), ('run__isnull', False), ('subject_id__isnull', True)), models.Q(('kind__in', ['checkout', 'charge', 'refund', 'credit_note']), ('run__isnull', True), ('subject_id__isnull', False)), _connector='OR'), name='payment_step_belongs'),
        ),
        migrations.AddField(
            model_name='collectionterms',
            name='tenant',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation'),
        ),
        migrations.AddField(
            model_name='dunningcase',
            name='invoice',
            field=models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='dunning_case', to='invoicing.invoice'),
        ),
        migrations.AddField(
            model_name='dunningcase',
            name='tenant',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation'),
        ),
        migrations.AddField(
            model_name='dunningoverride',
            name='tenant',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation'),
        ),
        migrations.AddConstraint(
            model_name='dunningpolicy',
            constraint=models.CheckConstraint(condition=models.Q(('id', 1)), name='dunning_policy_one'),
        ),
        migrations.AddField(
            model_name='dunningstep',
            name='invoice',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='dunning_steps', to='invoicing.invoice'),
        ),
        migrations.AddField(
            model_name='dunningstep',
            name='tenant',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation'),
        ),
        migrations.AddField(
            model_name='dunningsuspension',
            name='tenant',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation'),
        ),
        migrations.AddField(
            model_name='invoiceterms',
            name='invoice',
            field=models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='terms', to='invoicing.invoice'),
        ),
        migrations.AddField(
            model_name='invoiceterms',
            name='tenant',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation'),
        ),
        migrations.AddField(
            model_name='recordedpayment',
            name='invoice',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='recorded_payments', to='invoicing.invoice'),
        ),
        migrations.AddField(
            model_name='recordedpayment',
            name='takes_back',
            field=models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='taken_back_by', to='payments.recordedpayment'),
        ),
        migrations.AddField(
            model_name='recordedpayment',
            name='tenant',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation'),
        ),
        migrations.AddConstraint(
            model_name='collectionterms',
            constraint=models.UniqueConstraint(fields=('tenant',), name='collection_terms_one'),
        ),
        migrations.AddConstraint(
            model_name='collectionterms',
            constraint=models.CheckConstraint(condition=models.Q(('method__in', ['charge_automatically', 'send_invoice', 'manual'])), name='collection_terms_method_known'),
        ),
        migrations.AddConstraint(
            model_name='collectionterms',
            constraint=models.CheckConstraint(condition=models.Q(('days_until_due__gte', 0), ('days_until_due__lte', 365)), name='collection_terms_days'),
        ),
        migrations.AddIndex(
            model_name='dunningcase',
            index=models.Index(condition=models.Q(('closed_at__isnull', True)), fields=['looked_at'], name='dunning_case_open'),
        ),
        migrations.AddConstraint(
            model_name='dunningoverride',
            constraint=models.UniqueConstraint(fields=('tenant',), name='dunning_override_one'),
        ),
        migrations.AddConstraint(
            model_name='dunningstep',
            constraint=models.UniqueConstraint(fields=('invoice', 'step'), name='dunning_step_once'),
        ),
        migrations.AddConstraint(
            model_name='dunningstep',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['charge', 'suspend', 'mail', 'end'])), name='dunning_step_kind_known'),
        ),
        migrations.AddConstraint(
            model_name='dunningstep',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('done_at__isnull', True), ('state', 'begun')), models.Q(('done_at__isnull', False), ('state', 'done')), _connector='OR'), name='dunning_step_done_at'),
        ),
        migrations.AddConstraint(
            model_name='dunningsuspension',
            constraint=models.UniqueConstraint(fields=('tenant',), name='dunning_suspension_one'),
        ),
        migrations.AddConstraint(
            model_name='invoiceterms',
            constraint=models.CheckConstraint(condition=models.Q(('method__in', ['charge_automatically', 'send_invoice', 'manual'])), name='invoice_terms_method_known'),
        ),
        migrations.AddConstraint(
            model_name='invoiceterms',
            constraint=models.CheckConstraint(condition=models.Q(('days_until_due__gte', 0), ('days_until_due__lte', 365)), name='invoice_terms_days'),
        ),
        migrations.AddConstraint(
            model_name='recordedpayment',
            constraint=models.UniqueConstraint(condition=models.Q(('amount_minor__gt', 0)), fields=('invoice', 'reference'), name='recorded_payment_reference_once'),
        ),
        migrations.AddConstraint(
            model_name='recordedpayment',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('amount_minor__gt', 0), ('balance_minor__gte', 0), ('balance_minor__lte', models.F('amount_minor')), ('takes_back__isnull', True)), models.Q(('amount_minor__lt', 0), ('balance_minor__gte', models.F('amount_minor')), ('balance_minor__lte', 0), ('takes_back__isnull', False), models.Q(('reason', ''), _negated=True)), models.Q(('amount_minor', 0), ('balance_minor__gt', 0), ('takes_back__isnull', True)), _connector='OR'), name='recorded_payment_is_one_of_three'),
        ),
        migrations.AddConstraint(
            model_name='recordedpayment',
            constraint=models.CheckConstraint(condition=models.Q(('reference', ''), _negated=True), name='recorded_payment_reference_given'),
        ),
        migrations.RunSQL(ISOLATED, UNDO),
    ]
