"""Stripe may compute an invoice's taxes: who has it do so, and what it said.

Such an invoice gets its taxes while it is finalising, once; from then on it owes what it says, like
any. So what may not change of an invoice is its subtotal, and its taxes but for that moment. What
ran before this migration knows nobody who chose Stripe, and cannot open an invoice of theirs.
"""

import django.db.models.deletion
import meterplane.kernel.clock
import meterplane.kernel.ids
from django.db import migrations, models

CHOSEN = """
SELECT meterplane_isolate('stripe_tax');

-- One decides at a time, so that each sees what the other chose.
CREATE FUNCTION taxes_of_one_kind() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $body$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('invoicing.taxes:' || NEW.tenant_id, 0));
  IF (TG_TABLE_NAME = 'stripe_tax'
      AND EXISTS (SELECT FROM assigned_tax WHERE tenant_id = NEW.tenant_id))
     OR (TG_TABLE_NAME = 'assigned_tax'
         AND EXISTS (SELECT FROM stripe_tax WHERE tenant_id = NEW.tenant_id)) THEN
    RAISE EXCEPTION 'organisation % is taxed at its rates or by Stripe, not both', NEW.tenant_id
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER stripe_tax_without_rates BEFORE INSERT ON stripe_tax
  FOR EACH ROW EXECUTE FUNCTION taxes_of_one_kind();
CREATE TRIGGER assigned_tax_without_stripe BEFORE INSERT ON assigned_tax
  FOR EACH ROW EXECUTE FUNCTION taxes_of_one_kind();
"""
UNDO_CHOSEN = """
DROP TRIGGER assigned_tax_without_stripe ON assigned_tax;
DROP TRIGGER stripe_tax_without_rates ON stripe_tax;
DROP FUNCTION taxes_of_one_kind();
"""

GUARD = """
CREATE OR REPLACE FUNCTION invoice_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF (NEW.id, NEW.tenant_id, NEW.period_id, NEW.period_start, NEW.period_end, NEW.currency,
      NEW.total_minor{new_taxes}, NEW.content_hash, NEW.created_at,
      NEW.kind, NEW.interim_sequence, NEW.usage_seen_at, NEW.usage_snapshot)
     IS DISTINCT FROM
     (OLD.id, OLD.tenant_id, OLD.period_id, OLD.period_start, OLD.period_end, OLD.currency,
      OLD.total_minor{old_taxes}, OLD.content_hash, OLD.created_at,
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
    OR (OLD.status = 'uncollectible' AND NEW.status IN ('paid', 'void'))
  ) THEN
    RAISE EXCEPTION 'an invoice does not go from % to %', OLD.status, NEW.status
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;

CREATE OR REPLACE FUNCTION invoice_document_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF (NEW.tax_exclusive_minor, NEW.tax_inclusive_minor, NEW.tax_note{new_taxed})
     IS DISTINCT FROM (OLD.tax_exclusive_minor, OLD.tax_inclusive_minor, OLD.tax_note{old_taxed})
     {but_for} THEN
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
"""
GUARD_NOW = GUARD.format(
    new_taxes=" - NEW.tax_exclusive_minor",
    old_taxes=" - OLD.tax_exclusive_minor",
    new_taxed=", NEW.taxed_by, NEW.taxed_at",
    old_taxed=", OLD.taxed_by, OLD.taxed_at",
    but_for="""AND NOT (
       OLD.taxed_by = 'stripe' AND NEW.taxed_by = 'stripe'
       AND OLD.taxed_at IS NULL AND NEW.taxed_at IS NOT NULL
       AND OLD.status = 'finalising' AND NEW.status = 'finalising'
       AND NEW.tax_inclusive_minor = OLD.tax_inclusive_minor)""",
)
GUARD_BEFORE = GUARD.format(new_taxes="", old_taxes="", new_taxed="", old_taxed="", but_for="")

TOLD = """
CREATE FUNCTION invoice_tax_of_provider() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $body$
DECLARE
  taxed invoice%ROWTYPE;
BEGIN
  SELECT * INTO taxed FROM invoice WHERE id = NEW.invoice_id FOR UPDATE;
  IF taxed.taxed_by <> 'stripe' OR taxed.taxed_at IS NOT NULL OR taxed.status <> 'finalising' THEN
    RAISE EXCEPTION 'invoice % takes no taxes from Stripe', NEW.invoice_id
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER invoice_tax_of_provider BEFORE INSERT ON invoice_tax
  FOR EACH ROW WHEN (NEW.rate_id IS NULL) EXECUTE FUNCTION invoice_tax_of_provider();
CREATE CONSTRAINT TRIGGER invoice_taxed_adds_up AFTER UPDATE OF taxed_at ON invoice
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION invoice_adds_up();
"""
UNDO_TOLD = """
DROP TRIGGER invoice_taxed_adds_up ON invoice;
DROP TRIGGER invoice_tax_of_provider ON invoice_tax;
DROP FUNCTION invoice_tax_of_provider();
"""

# Stripe's taxes of an interim invoice stay: each invoice is taxed on what it adds.
TAKES_BACK = """
CREATE OR REPLACE FUNCTION invoice_takes_interims_back() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp SET enable_seqscan = off AS $body$
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
      FROM invoice_tax t JOIN interim ON interim.id = t.invoice_id
     {of_rates} GROUP BY 1, 2
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
"""


class Migration(migrations.Migration):

    dependencies = [("invoicing", "0009_checks_by_index")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.CreateModel(
            name="StripeTax",
            fields=[
                ("id", models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ("created_at", models.DateTimeField(default=meterplane.kernel.clock.now)),
                ("tenant", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="+", to="tenants.organisation")),
            ],
            options={
                "db_table": "stripe_tax",
                "constraints": [models.UniqueConstraint(fields=("tenant",), name="stripe_tax_one")],
            },
        ),
        migrations.AddField(
            model_name="invoice",
            name="taxed_by",
            field=models.CharField(choices=[("rates", "Rates of our own"), ("stripe", "Stripe")], db_default="rates", default="rates", max_length=8),
        ),
        migrations.AddField(
            model_name="invoice",
            name="taxed_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddConstraint(
            model_name="invoice",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("taxed_at__isnull", True), ("taxed_by", "rates")),
                    models.Q(
                        ("taxed_by", "stripe"),
                        models.Q(
                            ("taxed_at__isnull", False),
                            ("status__in", ["draft", "finalising"]),
                            _connector="OR",
                        ),
                    ),
                    _connector="OR",
                ),
                name="invoice_taxed_before_it_is_open",
            ),
        ),
        migrations.AddField(
            model_name="invoicetax",
            name="provider_rate",
            field=models.CharField(blank=True, db_default="", default="", max_length=64),
        ),
        migrations.AlterField(
            model_name="invoicetax",
            name="rate",
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="invoicing.taxrate"),
        ),
        migrations.RemoveConstraint(model_name="invoicetax", name="tax_rate_once"),
        migrations.AddConstraint(
            model_name="invoicetax",
            constraint=models.UniqueConstraint(fields=("invoice", "rate", "interim_id", "provider_rate"), name="tax_rate_once", nulls_distinct=False),
        ),
        migrations.AddConstraint(
            model_name="invoicetax",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("provider_rate", ""), ("rate__isnull", False)),
                    models.Q(
                        ("interim_id__isnull", True), ("mode", "exclusive"), ("rate__isnull", True),
                        models.Q(("provider_rate", ""), _negated=True),
                        models.Q(("note", ""), _negated=True),
                    ),
                    _connector="OR",
                ),
                name="tax_of_a_rate_or_provider",
            ),
        ),
        migrations.RunSQL(CHOSEN, UNDO_CHOSEN),
        migrations.RunSQL(GUARD_NOW, GUARD_BEFORE),
        migrations.RunSQL(TOLD, UNDO_TOLD),
        migrations.RunSQL(
            TAKES_BACK.format(of_rates="WHERE t.rate_id IS NOT NULL"),
            TAKES_BACK.format(of_rates=""),
        ),
    ]
