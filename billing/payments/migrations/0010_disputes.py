"""Payments that banks take back, and what each dispute moved."""

import django.db.models.deletion
import meterplane.kernel.clock
import meterplane.kernel.ids
from django.db import migrations, models
from django.db.models import F, Q

ISOLATED = """
SELECT meterplane_isolate('dispute');
SELECT meterplane_isolate('dispute_movement');
ALTER TABLE dispute
  ADD CONSTRAINT dispute_invoice_same_tenant
    FOREIGN KEY (tenant_id, invoice_id) REFERENCES invoice (tenant_id, id),
  ADD CONSTRAINT dispute_top_up_same_tenant
    FOREIGN KEY (tenant_id, top_up_id) REFERENCES top_up (tenant_id, id);
ALTER TABLE dispute_movement
  ADD CONSTRAINT dispute_movement_same_tenant
    FOREIGN KEY (tenant_id, dispute_id) REFERENCES dispute (tenant_id, id);
REVOKE DELETE, TRUNCATE ON dispute FROM meterplane_app, meterplane_system;
REVOKE UPDATE, DELETE, TRUNCATE ON dispute_movement FROM meterplane_app, meterplane_system;
"""

GUARDED = """
CREATE FUNCTION dispute_rank(status text) RETURNS int LANGUAGE sql IMMUTABLE AS $body$
  SELECT CASE status
    WHEN 'warning_needs_response' THEN 0 WHEN 'warning_under_review' THEN 1
    WHEN 'warning_closed' THEN 2 WHEN 'prevented' THEN 2
    WHEN 'needs_response' THEN 3 WHEN 'under_review' THEN 4
    WHEN 'lost' THEN 5 WHEN 'appeal_needs_response' THEN 5 WHEN 'appeal_under_review' THEN 5
    WHEN 'won' THEN 6 END
$body$;

CREATE FUNCTION dispute_guard() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  IF (NEW.id, NEW.provider, NEW.provider_dispute_id, NEW.charge_id, NEW.payment_intent_id,
      NEW.currency, NEW.reason, NEW.opened_at, NEW.created_at)
     IS DISTINCT FROM
     (OLD.id, OLD.provider, OLD.provider_dispute_id, OLD.charge_id, OLD.payment_intent_id,
      OLD.currency, OLD.reason, OLD.opened_at, OLD.created_at)
     OR (OLD.tenant_id IS NOT NULL AND (NEW.tenant_id, NEW.invoice_id, NEW.top_up_id)
         IS DISTINCT FROM (OLD.tenant_id, OLD.invoice_id, OLD.top_up_id)) THEN
    RAISE EXCEPTION 'what dispute % is does not change', OLD.id USING ERRCODE = 'restrict_violation';
  END IF;
  IF dispute_rank(NEW.status) < dispute_rank(OLD.status) THEN
    RAISE EXCEPTION 'dispute % is %, and not %', OLD.id, OLD.status, NEW.status
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END $body$;
CREATE TRIGGER dispute_guard BEFORE UPDATE ON dispute FOR EACH ROW EXECUTE FUNCTION dispute_guard();
CREATE TRIGGER dispute_never_deleted BEFORE DELETE ON dispute
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER dispute_movement_written_once BEFORE UPDATE OR DELETE ON dispute_movement
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
"""

UNDO = """
DROP TRIGGER dispute_movement_written_once ON dispute_movement;
DROP TRIGGER dispute_never_deleted ON dispute;
DROP TRIGGER dispute_guard ON dispute;
DROP FUNCTION dispute_guard();
DROP FUNCTION dispute_rank(text);
"""

STATUSES = [
    ("warning_needs_response", "Inquiry, needs an answer"),
    ("warning_under_review", "Inquiry, answered"),
    ("warning_closed", "Inquiry closed"),
    ("prevented", "Prevented"),
    ("needs_response", "Needs an answer"),
    ("under_review", "Under review"),
    ("lost", "Lost"),
    ("appeal_needs_response", "Appeal needs an answer"),
    ("appeal_under_review", "Appeal under review"),
    ("won", "Won"),
]
KINDS = [
    ("withdrawn", "Withdrawn"),
    ("reinstated", "Reinstated"),
    ("fee_charged", "Fee charged"),
    ("fee_returned", "Fee given back"),
    ("credit_taken", "Credit taken back"),
    ("credit_returned", "Credit given back"),
    ("lost", "Lost"),
    ("recovered", "Recovered"),
]


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0009_dunning"),
        ("credits", "0003_disputes"),
        ("ledger", "0005_disputes"),
        ("invoicing", "0011_carried"),
        ("tenants", "0001_initial"),
    ]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.AlterField(
            model_name="paymentfinding",
            name="kind",
            field=models.CharField(choices=[("invoice", "Invoice"), ("payment", "Payment"), ("refund", "Refund"), ("credit_note", "Credit note"), ("dispute", "Dispute"), ("clearing", "Clearing account")], max_length=16),
        ),
        migrations.CreateModel(
            name="Dispute",
            fields=[
                ("id", models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ("provider", models.CharField(max_length=16)),
                ("provider_dispute_id", models.CharField(max_length=64)),
                ("charge_id", models.CharField(max_length=64)),
                ("payment_intent_id", models.CharField(blank=True, default="", max_length=64)),
                ("currency", models.CharField(max_length=3)),
                ("amount_minor", models.BigIntegerField()),
                ("reason", models.CharField(max_length=64)),
                ("status", models.CharField(choices=STATUSES, max_length=24)),
                ("evidence_due_at", models.DateTimeField(blank=True, null=True)),
                ("has_evidence", models.BooleanField(default=False)),
                ("note", models.CharField(blank=True, default="", max_length=300)),
                ("opened_at", models.DateTimeField()),
                ("closed_at", models.DateTimeField(blank=True, null=True)),
                ("checked_at", models.DateTimeField(default=meterplane.kernel.clock.now)),
                ("created_at", models.DateTimeField(default=meterplane.kernel.clock.now)),
                ("invoice", models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name="disputes", to="invoicing.invoice")),
                ("tenant", models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="tenants.organisation")),
                ("top_up", models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name="disputes", to="payments.topup")),
            ],
            options={"db_table": "dispute", "ordering": ["-opened_at", "-id"]},
        ),
        migrations.CreateModel(
            name="DisputeMovement",
            fields=[
                ("id", models.UUIDField(default=meterplane.kernel.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ("kind", models.CharField(choices=KINDS, max_length=16)),
                ("currency", models.CharField(max_length=3)),
                ("amount_minor", models.BigIntegerField()),
                ("owed_minor", models.BigIntegerField(default=0)),
                ("balance_minor", models.BigIntegerField(default=0)),
                ("provider_transaction_id", models.CharField(blank=True, default="", max_length=64)),
                ("at", models.DateTimeField()),
                ("recorded_at", models.DateTimeField(default=meterplane.kernel.clock.now)),
                ("dispute", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="movements", to="payments.dispute")),
                ("tenant", models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name="+", to="tenants.organisation")),
            ],
            options={"db_table": "dispute_movement", "ordering": ["recorded_at", "id"]},
        ),
        migrations.AddIndex(
            model_name="dispute",
            index=models.Index(condition=Q(closed_at__isnull=True), fields=["evidence_due_at"], name="dispute_open_by_deadline"),
        ),
        migrations.AddIndex(
            model_name="dispute",
            index=models.Index(fields=["tenant", "-opened_at"], name="dispute_newest"),
        ),
        migrations.AddConstraint(
            model_name="dispute",
            constraint=models.UniqueConstraint(fields=("provider", "provider_dispute_id"), name="dispute_there_once"),
        ),
        migrations.AddConstraint(
            model_name="dispute",
            constraint=models.CheckConstraint(condition=Q(amount_minor__gt=0), name="dispute_is_something"),
        ),
        migrations.AddConstraint(
            model_name="dispute",
            constraint=models.CheckConstraint(
                condition=Q(tenant=None, invoice=None, top_up=None, note__gt="")
                | Q(tenant__isnull=False, invoice__isnull=False, top_up=None, note="")
                | Q(tenant__isnull=False, invoice=None, top_up__isnull=False, note=""),
                name="dispute_of_one_payment",
            ),
        ),
        migrations.AddConstraint(
            model_name="dispute",
            constraint=models.CheckConstraint(
                condition=Q(status__in=["lost", "prevented", "warning_closed", "won"], closed_at__isnull=False)
                | Q(
                    status__in=["appeal_needs_response", "appeal_under_review", "needs_response", "under_review", "warning_needs_response", "warning_under_review"],
                    closed_at__isnull=True,
                ),
                name="dispute_closed_when_over",
            ),
        ),
        migrations.AddConstraint(
            model_name="disputemovement",
            constraint=models.UniqueConstraint(
                condition=Q(provider_transaction_id__gt=""),
                fields=("dispute", "provider_transaction_id", "kind"),
                name="dispute_transaction_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="disputemovement",
            constraint=models.CheckConstraint(
                condition=Q(kind__in=["withdrawn", "reinstated", "fee_charged", "fee_returned"], provider_transaction_id__gt="")
                | Q(kind__in=["credit_taken", "credit_returned", "lost", "recovered"], provider_transaction_id=""),
                name="dispute_movement_kind",
            ),
        ),
        migrations.AddConstraint(
            model_name="disputemovement",
            constraint=models.CheckConstraint(
                condition=Q(owed_minor=0, balance_minor=0) | Q(kind__in=["lost", "recovered"]),
                name="dispute_movement_only_losses_have_parts",
            ),
        ),
        migrations.AddConstraint(
            model_name="disputemovement",
            constraint=models.CheckConstraint(
                condition=Q(amount_minor__gt=0, owed_minor__gte=0, balance_minor__gte=0)
                & Q(amount_minor__gte=F("owed_minor") + F("balance_minor")),
                name="dispute_movement_parts_within_it",
            ),
        ),
        migrations.RunSQL(ISOLATED, migrations.RunSQL.noop),
        migrations.RunSQL(GUARDED, UNDO),
    ]
