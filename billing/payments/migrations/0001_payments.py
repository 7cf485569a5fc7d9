"""Provider accounts, runs, frozen steps and the inbox of provider events."""

import django.db.models.deletion
import meterplane.kernel.clock
import meterplane.kernel.ids
from django.db import migrations, models



ISOLATED = """
SELECT meterplane_isolate('billing_account');
SELECT meterplane_isolate('payment_run');
SELECT meterplane_isolate('payment_step');
ALTER TABLE payment_run ADD CONSTRAINT payment_run_invoice_same_tenant
  FOREIGN KEY (tenant_id, invoice_id) REFERENCES invoice (tenant_id, id);
ALTER TABLE payment_step ADD CONSTRAINT payment_step_run_same_tenant
  FOREIGN KEY (tenant_id, run_id) REFERENCES payment_run (tenant_id, id);
-- The inbox holds every tenant's events: no policy, so only the system's role sees any.
ALTER TABLE webhook_event ENABLE ROW LEVEL SECURITY;
ALTER TABLE webhook_event FORCE ROW LEVEL SECURITY;
"""

FROZEN = """
CREATE FUNCTION payment_step_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF (NEW.id, NEW.tenant_id, NEW.run_id, NEW.kind, NEW.revision, NEW.parameters, NEW.digest,
      NEW.idempotency_key)
     IS DISTINCT FROM
     (OLD.id, OLD.tenant_id, OLD.run_id, OLD.kind, OLD.revision, OLD.parameters, OLD.digest,
      OLD.idempotency_key) THEN
    RAISE EXCEPTION 'payment step % is frozen', OLD.idempotency_key
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF OLD.state IN ('done', 'failed') AND NEW.state <> OLD.state THEN
    RAISE EXCEPTION 'payment step % is %', OLD.idempotency_key, OLD.state
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER payment_step_guard BEFORE UPDATE ON payment_step
  FOR EACH ROW EXECUTE FUNCTION payment_step_guard();
"""

UNDO = """
DROP TRIGGER payment_step_guard ON payment_step;
DROP FUNCTION payment_step_guard();
"""


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('invoicing', '0001_invoices'),
        ('tenants', '0001_initial'),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.CreateModel(
            name='PaymentRun',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('provider', models.CharField(max_length=16)),
                ('customer_id', models.CharField(max_length=64)),
                ('provider_invoice_id', models.CharField(blank=True, max_length=64, null=True)),
                ('digest', models.CharField(max_length=64)),
                ('lease_token', models.UUIDField(blank=True, null=True)),
                ('lease_until', models.DateTimeField(blank=True, null=True)),
                ('attempts', models.PositiveIntegerField(default=0)),
                ('next_attempt_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('checked_at', models.DateTimeField(blank=True, null=True)),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('invoice', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='payment_run', to='invoicing.invoice')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'payment_run',
                'ordering': ['-created_at'],
            },
        ),
        migrations.CreateModel(
            name='PaymentStep',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('customer', 'Create the customer'), ('draft', 'Create the draft invoice'), ('lines', 'Attach the lines'), ('verify', 'Verify line by line'), ('finalise', 'Finalise'), ('pay', 'Charge the customer'), ('mirror', 'Mirror the outcome')], max_length=16)),
                ('revision', models.PositiveIntegerField(default=1)),
                ('parameters', models.TextField()),
                ('digest', models.CharField(max_length=64)),
                ('idempotency_key', models.CharField(max_length=200, unique=True)),
                ('state', models.CharField(choices=[('ready', 'Ready'), ('sent', 'Sent, outcome not recorded'), ('unclear', 'Answered with a server error'), ('done', 'Done'), ('failed', 'Failed')], default='ready', max_length=16)),
                ('attempts', models.PositiveIntegerField(default=0)),
                ('first_sent_at', models.DateTimeField(blank=True, null=True)),
                ('last_sent_at', models.DateTimeField(blank=True, null=True)),
                ('done_at', models.DateTimeField(blank=True, null=True)),
                ('result_id', models.CharField(blank=True, default='', max_length=64)),
                ('note', models.TextField(blank=True, default='')),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('run', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='steps', to='payments.paymentrun')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'payment_step',
                'ordering': ['created_at', 'id'],
            },
        ),
        migrations.CreateModel(
            name='WebhookEvent',
            fields=[
                ('event_id', models.CharField(max_length=100, primary_key=True, serialize=False)),
                ('type', models.CharField(max_length=100)),
                ('payload', models.JSONField()),
                ('received_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('processed_at', models.DateTimeField(blank=True, null=True)),
                ('outcome', models.CharField(blank=True, default='', max_length=300)),
            ],
            options={
                'db_table': 'webhook_event',
                'ordering': ['-received_at'],
                'indexes': [models.Index(condition=models.Q(('processed_at__isnull', True)), fields=['received_at'], name='webhook_event_unprocessed')],
            },
        ),
        migrations.CreateModel(
            name='BillingAccount',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('provider', models.CharField(max_length=16)),
                ('customer_id', models.CharField(max_length=64)),
                ('default_payment_method', models.CharField(blank=True, default='', max_length=64)),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'billing_account',
                'constraints': [models.UniqueConstraint(fields=('tenant', 'provider'), name='billing_account_once'), models.UniqueConstraint(fields=('provider', 'customer_id'), name='billing_account_customer_once')],
            },
        ),
        migrations.AddConstraint(
            model_name='paymentrun',
            constraint=models.UniqueConstraint(fields=('provider', 'provider_invoice_id'), name='payment_run_provider_invoice_once'),
        ),
        migrations.AddConstraint(
            model_name='paymentrun',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('lease_token__isnull', True), ('lease_until__isnull', True)), models.Q(('lease_token__isnull', False), ('lease_until__isnull', False)), _connector='OR'), name='payment_run_lease_whole'),
        ),
        migrations.AddConstraint(
            model_name='paymentstep',
            constraint=models.UniqueConstraint(fields=('run', 'kind', 'revision'), name='payment_step_once'),
        ),
        migrations.AddConstraint(
            model_name='paymentstep',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('kind', 'customer'), ('run__isnull', True)), models.Q(models.Q(('kind', 'customer'), _negated=True), ('run__isnull', False)), _connector='OR'), name='payment_step_belongs_to_a_run'),
        ),
        migrations.AddConstraint(
            model_name='paymentstep',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['customer', 'draft', 'lines', 'verify', 'finalise', 'pay', 'mirror'])), name='payment_step_kind_known'),
        ),
        migrations.AddConstraint(
            model_name='paymentstep',
            constraint=models.CheckConstraint(condition=models.Q(('state__in', ['ready', 'sent', 'unclear', 'done', 'failed'])), name='payment_step_state_known'),
        ),
        migrations.RunSQL(ISOLATED, migrations.RunSQL.noop),
        migrations.RunSQL(FROZEN, UNDO),
    ]
