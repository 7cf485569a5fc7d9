"""An invoice may be paid in parts, each recorded by itself; if one was none after all, it is owed
again. Any other invoice that is paid stays paid."""

from django.db import migrations, models

GUARD = """
CREATE OR REPLACE FUNCTION invoice_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF (NEW.id, NEW.tenant_id, NEW.period_id, NEW.period_start, NEW.period_end, NEW.currency,
      NEW.total_minor - NEW.tax_exclusive_minor, NEW.content_hash, NEW.created_at,
      NEW.kind, NEW.interim_sequence, NEW.usage_seen_at, NEW.usage_snapshot)
     IS DISTINCT FROM
     (OLD.id, OLD.tenant_id, OLD.period_id, OLD.period_start, OLD.period_end, OLD.currency,
      OLD.total_minor - OLD.tax_exclusive_minor, OLD.content_hash, OLD.created_at,
      OLD.kind, OLD.interim_sequence, OLD.usage_seen_at, OLD.usage_snapshot) THEN
    RAISE EXCEPTION 'what invoice % owes cannot change', OLD.id
      USING ERRCODE = 'restrict_violation';
  END IF;
  IF OLD.number IS NOT NULL AND (NEW.number, NEW.finalised_at)
     IS DISTINCT FROM (OLD.number, OLD.finalised_at) THEN
    RAISE EXCEPTION 'invoice % has its number', OLD.number USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.status <> OLD.status AND NOT (
    (OLD.status = 'draft' AND NEW.status = 'finalising')
    OR (OLD.status = 'finalising' AND NEW.status = 'open')
    OR (OLD.status = 'open' AND NEW.status IN ('paid', 'void', 'uncollectible'))
    OR (OLD.status = 'uncollectible' AND NEW.status IN ('paid', 'void')){reopened}
  ) THEN
    RAISE EXCEPTION 'an invoice does not go from % to %', OLD.status, NEW.status
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
"""
PAID_GUARD = """
CREATE OR REPLACE FUNCTION invoice_paid_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF OLD.status = 'paid'{not_in_parts} AND NEW.paid_minor IS DISTINCT FROM OLD.paid_minor THEN
    RAISE EXCEPTION 'what was paid of invoice % is known', OLD.number
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
"""
REOPENED = """
    OR (OLD.status = 'paid' AND OLD.paid_in_parts AND NEW.status IN ('open', 'uncollectible'))"""
GUARD_NOW = GUARD.format(reopened=REOPENED) + PAID_GUARD.format(
    not_in_parts=" AND NOT OLD.paid_in_parts"
)
GUARD_BEFORE = GUARD.format(reopened="") + PAID_GUARD.format(not_in_parts="")


class Migration(migrations.Migration):
    dependencies = [("invoicing", "0011_carried")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.AddField(
            model_name="invoice",
            name="paid_in_parts",
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddConstraint(
            model_name="invoice",
            constraint=models.CheckConstraint(
                condition=models.Q(paid_in_parts=False)
                | models.Q(status="paid", paid_minor__isnull=False),
                name="invoice_paid_in_parts_of_a_paid_one",
            ),
        ),
        migrations.RunSQL(GUARD_NOW, GUARD_BEFORE),
    ]
