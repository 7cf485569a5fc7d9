"""Steps of what is no run: a top-up, a refund, a credit note."""

from django.db import migrations, models

GUARD = """
CREATE OR REPLACE FUNCTION payment_step_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF (NEW.id, NEW.tenant_id, NEW.run_id, NEW.subject_id, NEW.kind, NEW.revision, NEW.parameters, NEW.digest,
      NEW.idempotency_key)
     IS DISTINCT FROM
     (OLD.id, OLD.tenant_id, OLD.run_id, OLD.subject_id, OLD.kind, OLD.revision, OLD.parameters, OLD.digest,
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
"""

UNDO = """
CREATE OR REPLACE FUNCTION payment_step_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
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
"""


class Migration(migrations.Migration):

    dependencies = [
        ('payments', '0002_pace'),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.RemoveConstraint(
            model_name='paymentstep',
            name='payment_step_belongs_to_a_run',
        ),
        migrations.RemoveConstraint(
            model_name='paymentstep',
            name='payment_step_kind_known',
        ),
        migrations.AddField(
            model_name='paymentstep',
            name='subject_id',
            field=models.UUIDField(blank=True, null=True),
        ),
        migrations.AlterField(
            model_name='paymentstep',
            name='kind',
            field=models.CharField(choices=[('customer', 'Create the customer'), ('draft', 'Create the draft invoice'), ('lines', 'Attach the lines'), ('verify', 'Verify line by line'), ('finalise', 'Finalise'), ('pay', 'Charge the customer'), ('mirror', 'Mirror the outcome'), ('void', 'Void'), ('write_off', 'Mark uncollectible'), ('checkout', 'Open a checkout'), ('charge', 'Charge for credit'), ('refund', 'Refund'), ('credit_note', 'Issue the credit note')], max_length=16),
        ),
        migrations.AddConstraint(
            model_name='paymentstep',
            constraint=models.UniqueConstraint(fields=('subject_id', 'kind', 'revision'), name='payment_step_of_subject_once'),
        ),
        migrations.AddConstraint(
            model_name='paymentstep',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('kind', 'customer'), ('run__isnull', True), ('subject_id__isnull', True)), models.Q(('kind__in', ['draft', 'lines', 'verify', 'finalise', 'pay', 'mirror', 'void', 'write_off']), ('run__isnull', False), ('subject_id__isnull', True)), models.Q(('kind__in', ['checkout', 'charge', 'refund', 'credit_note']), ('run__isnull', True), ('subject_id__isnull', False)), _connector='OR'), name='payment_step_belongs'),
        ),
        migrations.RunSQL(GUARD, UNDO),
    ]
