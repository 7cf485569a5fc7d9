"""Money paid back: by credit notes, by operators and at the provider's own pages."""

import django.db.models.deletion
import django.db.models.expressions
import meterplane.kernel.clock
import meterplane.kernel.ids
from django.db import migrations, models
from django.db.models import F, Q

ISOLATED = """
SELECT meterplane_isolate('refund');
ALTER TABLE refund
  ADD CONSTRAINT refund_invoice_same_tenant
    FOREIGN KEY (tenant_id, invoice_id) REFERENCES invoice (tenant_id, id),
  ADD CONSTRAINT refund_note_same_tenant
    FOREIGN KEY (tenant_id, note_id) REFERENCES credit_note (tenant_id, id);
REVOKE DELETE, TRUNCATE ON refund FROM meterplane_app, meterplane_system;
"""

GUARD = """
CREATE FUNCTION refund_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF (NEW.id, NEW.tenant_id, NEW.invoice_id, NEW.note_id, NEW.provider, NEW.origin,
      NEW.currency, NEW.amount_minor, NEW.owed_minor, NEW.balance_minor, NEW.idempotency_key)
     IS DISTINCT FROM
     (OLD.id, OLD.tenant_id, OLD.invoice_id, OLD.note_id, OLD.provider, OLD.origin,
      OLD.currency, OLD.amount_minor, OLD.owed_minor, OLD.balance_minor, OLD.idempotency_key)
     OR (OLD.provider_refund_id IS NOT NULL AND NEW.provider_refund_id IS DISTINCT FROM OLD.provider_refund_id)
     OR (OLD.payment_intent_id <> '' AND NEW.payment_intent_id <> OLD.payment_intent_id)
     OR (OLD.made_at IS NOT NULL AND NEW.made_at IS DISTINCT FROM OLD.made_at) THEN
    RAISE EXCEPTION 'what refund % is does not change', OLD.id USING ERRCODE = 'restrict_violation';
  END IF;
  IF NEW.state <> OLD.state AND NOT (
       (OLD.state = 'asked')
    OR (OLD.state = 'pending' AND NEW.state IN ('succeeded', 'failed'))
    OR (OLD.state = 'succeeded' AND NEW.state = 'failed')) THEN
    RAISE EXCEPTION 'refund % is %, and not %', OLD.id, OLD.state, NEW.state
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER refund_guard BEFORE UPDATE ON refund FOR EACH ROW EXECUTE FUNCTION refund_guard();
"""

UNDO = """
DROP TRIGGER refund_guard ON refund;
DROP FUNCTION refund_guard();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0004_top_ups"),
        ("invoicing", "0007_settled_by_credit"),
        ("ledger", "0004_corrections"),
        ("tenants", "0001_initial"),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.CreateModel(
            name="Refund",
            fields=[
                ("id", models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ("provider", models.CharField(max_length=16)),
                ("provider_refund_id", models.CharField(blank=True, max_length=64, null=True)),
                ("payment_intent_id", models.CharField(blank=True, default="", max_length=64)),
                ("origin", models.CharField(choices=[("note", "A credit note"), ("operator", "An operator"), ("provider", "The provider's pages")], max_length=8)),
                ("state", models.CharField(choices=[("asked", "Asked for"), ("pending", "Pending"), ("succeeded", "Succeeded"), ("failed", "Failed"), ("refused", "Refused")], max_length=9)),
                ("currency", models.CharField(max_length=3)),
                ("amount_minor", models.BigIntegerField()),
                ("owed_minor", models.BigIntegerField()),
                ("balance_minor", models.BigIntegerField()),
                ("reason", models.CharField(blank=True, default="", max_length=200)),
                ("failure", models.CharField(blank=True, default="", max_length=300)),
                ("idempotency_key", models.CharField(blank=True, max_length=100, null=True)),
                ("created_at", models.DateTimeField(default=meterplane.kernel.clock.now)),
                ("made_at", models.DateTimeField(blank=True, null=True)),
                ("failed_at", models.DateTimeField(blank=True, null=True)),
                ("invoice", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="refunds", to="invoicing.invoice")),
                ("note", models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="invoicing.creditnote")),
                ("tenant", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="+", to="tenants.organisation")),
            ],
            options={"db_table": "refund", "ordering": ["-created_at", "-id"]},
        ),
        migrations.AddConstraint(
            model_name="refund",
            constraint=models.UniqueConstraint(fields=("provider", "provider_refund_id"), name="refund_there_once"),
        ),
        migrations.AddConstraint(
            model_name="refund",
            constraint=models.UniqueConstraint(fields=("tenant", "idempotency_key"), name="refund_asked_once"),
        ),
        migrations.AddConstraint(
            model_name="refund",
            constraint=models.CheckConstraint(
                condition=Q(amount_minor__gt=0, owed_minor__gte=0, balance_minor__gte=0)
                & Q(amount_minor__gte=F("owed_minor") + F("balance_minor")),
                name="refund_parts_within_it",
            ),
        ),
        migrations.AddConstraint(
            model_name="refund",
            constraint=models.CheckConstraint(
                condition=Q(origin="note", note__isnull=False, idempotency_key__isnull=True)
                | Q(origin="operator", note__isnull=True, idempotency_key__isnull=False)
                | Q(origin="provider", note__isnull=True, idempotency_key__isnull=True),
                name="refund_origin_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="refund",
            constraint=models.CheckConstraint(
                condition=Q(state__in=["asked", "refused"], made_at__isnull=True)
                | Q(state__in=["pending", "succeeded", "failed"], made_at__isnull=False, provider_refund_id__isnull=False),
                name="refund_state_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="refund",
            constraint=models.CheckConstraint(
                condition=Q(state="failed", failed_at__isnull=False) | (~Q(state="failed") & Q(failed_at__isnull=True)),
                name="refund_failed_once",
            ),
        ),
        migrations.RunSQL(ISOLATED, migrations.RunSQL.noop),
        migrations.RunSQL(GUARD, UNDO),
    ]
