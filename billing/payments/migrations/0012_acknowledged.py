"""Findings of more kinds, with amounts, that a person can acknowledge; how many of each agree."""

from django.db import migrations, models
from django.db.models import Q

KINDS = [
    ("invoice", "Invoice"), ("payment", "Payment"), ("refund", "Refund"),
    ("credit_note", "Credit note"), ("top_up", "Top-up"), ("customer", "Customer"),
    ("dispute", "Dispute"), ("clearing", "Clearing account"),
]  # fmt: skip


def _text(chars: int) -> models.CharField:
    return models.CharField(max_length=chars, blank=True, default="", db_default="")


class Migration(migrations.Migration):

    dependencies = [("payments", "0011_progress")]

    operations = [
        migrations.RunSQL("SET lock_timeout = '5s'", migrations.RunSQL.noop),
        migrations.AlterField(
            "paymentfinding", "kind", models.CharField(max_length=16, choices=KINDS)
        ),
        migrations.AddField("paymentfinding", "our_amount", _text(40)),
        migrations.AddField("paymentfinding", "their_amount", _text(40)),
        migrations.AddField(
            "paymentfinding", "acknowledged_at", models.DateTimeField(null=True, blank=True)
        ),
        migrations.AddField("paymentfinding", "acknowledged_by", _text(254)),
        migrations.AddField("paymentfinding", "acknowledgement", _text(400)),
        migrations.AddConstraint(
            "paymentfinding",
            models.CheckConstraint(
                condition=Q(acknowledged_at__isnull=True, acknowledged_by="", acknowledgement="")
                | Q(
                    acknowledged_at__isnull=False,
                    acknowledged_by__gt="",
                    acknowledgement__gt="",
                ),
                name="payment_finding_acknowledged_by_someone",
            ),
        ),
        migrations.AddField(
            "reconciledday", "counts", models.JSONField(default=dict, db_default={})
        ),
    ]
