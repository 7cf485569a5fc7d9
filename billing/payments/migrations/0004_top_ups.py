"""Cards being kept, and credit that is paid for ahead, by a person or by itself."""

import django.db.models.deletion
import meterplane.kernel.clock
import meterplane.kernel.ids
from django.db import migrations, models

ISOLATED = """
SELECT meterplane_isolate('card_setup');
SELECT meterplane_isolate('top_up');
SELECT meterplane_isolate('auto_reload');
ALTER TABLE top_up ADD CONSTRAINT top_up_grant_same_tenant
  FOREIGN KEY (tenant_id, grant_id) REFERENCES credit_grant (tenant_id, id);
REVOKE DELETE ON card_setup, top_up, auto_reload FROM meterplane_app, meterplane_system;
"""

GUARDED = """
CREATE FUNCTION top_up_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF (NEW.id, NEW.tenant_id, NEW.origin, NEW.amount_minor, NEW.currency, NEW.idempotency_key,
      NEW.created_by, NEW.created_at)
     IS DISTINCT FROM
     (OLD.id, OLD.tenant_id, OLD.origin, OLD.amount_minor, OLD.currency, OLD.idempotency_key,
      OLD.created_by, OLD.created_at) THEN
    RAISE EXCEPTION 'what top-up % asked for cannot change', OLD.id
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF OLD.payment_id <> '' AND NEW.payment_id <> OLD.payment_id THEN
    RAISE EXCEPTION 'top-up % is paid by %', OLD.id, OLD.payment_id
      USING ERRCODE = 'restrict_violation';
  END IF;
  -- Money that arrives late after all is money: whatever is over may still turn out to be paid.
  IF NEW.state <> OLD.state AND (OLD.state = 'paid' OR NEW.state = 'wanted') THEN
    RAISE EXCEPTION 'a top-up does not go from % to %', OLD.state, NEW.state
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.state = 'paid' AND NOT EXISTS (
    SELECT FROM credit_grant
     WHERE tenant_id = NEW.tenant_id AND id = NEW.grant_id AND kind = 'purchased'
       AND amount_minor = NEW.amount_minor AND currency = NEW.currency)
  THEN
    RAISE EXCEPTION 'top-up % is granted as it was paid', OLD.id
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER top_up_guard BEFORE UPDATE ON top_up
  FOR EACH ROW EXECUTE FUNCTION top_up_guard();
CREATE TRIGGER top_up_never_deleted BEFORE DELETE ON top_up
  FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Of what is reloaded by itself in a calendar month (UTC), what failed or expired does not count.
CREATE FUNCTION top_up_reload_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
  rules auto_reload%ROWTYPE;
  reloaded bigint;
BEGIN
  -- Locked: reloads of one organisation take turns.
  SELECT * INTO rules FROM auto_reload WHERE tenant_id = NEW.tenant_id FOR UPDATE;
  IF rules.is_on IS NOT TRUE OR rules.paused_at IS NOT NULL THEN
    RAISE EXCEPTION 'organisation % does not reload by itself', NEW.tenant_id
      USING ERRCODE = 'restrict_violation';
  END IF;
  SELECT coalesce(sum(amount_minor), 0) INTO reloaded FROM top_up
   WHERE tenant_id = NEW.tenant_id AND origin = 'auto' AND state IN ('wanted', 'paid', 'parked')
     AND date_trunc('month', created_at, 'UTC') = date_trunc('month', NEW.created_at, 'UTC');
  IF reloaded + NEW.amount_minor > rules.month_max_minor THEN
    RAISE EXCEPTION 'organisation % would reload more than % in a month', NEW.tenant_id,
      rules.month_max_minor USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER top_up_reload_guard BEFORE INSERT ON top_up
  FOR EACH ROW WHEN (NEW.origin = 'auto') EXECUTE FUNCTION top_up_reload_guard();

CREATE FUNCTION card_setup_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF (NEW.id, NEW.tenant_id, NEW.created_by, NEW.created_at)
     IS DISTINCT FROM (OLD.id, OLD.tenant_id, OLD.created_by, OLD.created_at)
     OR (OLD.state = 'chosen' AND NEW.state <> OLD.state)
     OR (OLD.checkout_id <> '' AND NEW.checkout_id <> OLD.checkout_id) THEN
    RAISE EXCEPTION 'card setup % is %', OLD.id, OLD.state USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER card_setup_guard BEFORE UPDATE ON card_setup
  FOR EACH ROW EXECUTE FUNCTION card_setup_guard();
"""

UNDO = """
DROP TRIGGER card_setup_guard ON card_setup;
DROP FUNCTION card_setup_guard();
DROP TRIGGER top_up_reload_guard ON top_up;
DROP FUNCTION top_up_reload_guard();
DROP TRIGGER top_up_never_deleted ON top_up;
DROP TRIGGER top_up_guard ON top_up;
DROP FUNCTION top_up_guard();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('credits', '0002_prepaid'),
        ('payments', '0003_subjects'),
        ('tenants', '0008_plan_restrictions'),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.AddField(
            model_name='billingaccount',
            name='card_brand',
            field=models.CharField(blank=True, db_default='', default='', max_length=40),
        ),
        migrations.AddField(
            model_name='billingaccount',
            name='card_kept_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='billingaccount',
            name='card_last4',
            field=models.CharField(blank=True, db_default='', default='', max_length=4),
        ),
        migrations.AlterField(
            model_name='paymentstep',
            name='result_id',
            field=models.CharField(blank=True, default='', max_length=128),
        ),
        migrations.CreateModel(
            name='AutoReload',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('is_on', models.BooleanField(default=False)),
                ('threshold_minor', models.BigIntegerField()),
                ('amount_minor', models.BigIntegerField()),
                ('month_max_minor', models.BigIntegerField()),
                ('paused_at', models.DateTimeField(blank=True, null=True)),
                ('pause_note', models.TextField(blank=True, default='')),
                ('checked_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('changed_by', models.CharField(max_length=120)),
                ('changed_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'auto_reload',
                'constraints': [models.UniqueConstraint(fields=('tenant',), name='auto_reload_once'), models.CheckConstraint(condition=models.Q(('amount_minor__gt', 0), ('threshold_minor__gt', 0), ('month_max_minor__gte', models.F('amount_minor'))), name='auto_reload_makes_sense')],
            },
        ),
        migrations.CreateModel(
            name='CardSetup',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('checkout_id', models.CharField(blank=True, default='', max_length=128)),
                ('state', models.CharField(choices=[('wanted', 'Wanted'), ('chosen', 'Chosen'), ('expired', 'Expired')], default='wanted', max_length=16)),
                ('payment_method', models.CharField(blank=True, default='', max_length=64)),
                ('checked_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('created_by', models.CharField(max_length=120)),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'card_setup',
                'ordering': ['-created_at', '-id'],
                'indexes': [models.Index(condition=models.Q(('state', 'wanted')), fields=['checked_at'], name='card_setup_wanted')],
                'constraints': [models.CheckConstraint(condition=models.Q(models.Q(('state', 'chosen'), models.Q(('payment_method', ''), _negated=True)), models.Q(('payment_method', ''), ('state__in', ['wanted', 'expired'])), _connector='OR'), name='card_setup_state_known')],
            },
        ),
        migrations.CreateModel(
            name='TopUp',
            fields=[
                ('id', models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('origin', models.CharField(choices=[('person', 'Bought'), ('auto', 'Reloaded by itself')], default='person', max_length=8)),
                ('amount_minor', models.BigIntegerField()),
                ('currency', models.CharField(max_length=3)),
                ('state', models.CharField(choices=[('wanted', 'Wanted'), ('paid', 'Paid'), ('failed', 'Failed'), ('expired', 'Expired'), ('parked', 'Parked')], default='wanted', max_length=16)),
                ('payment_id', models.CharField(blank=True, default='', max_length=128)),
                ('note', models.TextField(blank=True, default='')),
                ('idempotency_key', models.CharField(max_length=120)),
                ('created_by', models.CharField(max_length=120)),
                ('created_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('checked_at', models.DateTimeField(default=meterplane.kernel.clock.now)),
                ('settled_at', models.DateTimeField(blank=True, null=True)),
                ('grant', models.OneToOneField(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='credits.creditgrant')),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.organisation')),
            ],
            options={
                'db_table': 'top_up',
                'ordering': ['-created_at', '-id'],
                'indexes': [models.Index(condition=models.Q(('state', 'wanted')), fields=['checked_at'], name='top_up_wanted'), models.Index(fields=['tenant', '-created_at'], name='top_up_newest')],
                'constraints': [models.UniqueConstraint(fields=('tenant', 'idempotency_key'), name='top_up_key_once'), models.UniqueConstraint(condition=models.Q(('origin', 'auto'), ('state__in', ['wanted', 'parked'])), fields=('tenant',), name='top_up_one_reload_at_a_time'), models.CheckConstraint(condition=models.Q(('amount_minor__gt', 0)), name='top_up_is_something'), models.CheckConstraint(condition=models.Q(models.Q(('grant__isnull', False), ('state', 'paid')), models.Q(('grant__isnull', True), ('state__in', ['wanted', 'failed', 'expired', 'parked'])), _connector='OR'), name='top_up_paid_is_granted'), models.CheckConstraint(condition=models.Q(('origin__in', ['person', 'auto'])), name='top_up_origin_known')],
            },
        ),
        migrations.RunSQL(ISOLATED, migrations.RunSQL.noop),
        migrations.RunSQL(GUARDED, UNDO),
    ]
