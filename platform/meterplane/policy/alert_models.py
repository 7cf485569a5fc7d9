"""What somebody is to be told of a limit, and up to where was looked for it."""

from typing import Any

from django.db import models
from django.db.models import Q

from meterplane.kernel import clock
from tenants.scoping import TenantManager, TenantModel


class Alert(TenantModel):
    """One thing that is told once of a limit in one of its windows; the outbox of who delivers it.

    `label` names the window: as in `contracts.windows`; of rates and requests at once the UTC hour,
    `2026-11-29T11`; of a prepaid balance `prepaid:` and all that was paid in by then, in nano; of
    prepaid credit `credit:` and the id of the newest grant.
    `threshold` is what was reached, see `alert_rules`. `used` and `amount` are in the limit's unit
    as of `raised_at`; `used` is None where usage does not tell, `amount` of a limit that was gone.
    `hits` is how often the limit refused a request, or would have, and grows. Rows are delivered in
    the order of their ids; `delivered_at` is when.
    """

    class Threshold(models.TextChoices):
        HALF = "50", "50 % used"
        MOST = "80", "80 % used"
        ALL = "100", "100 % used"
        HIT = "hit", "Limit hit"
        BALANCE = "balance", "Balance low"

    level = models.CharField(max_length=16)
    scope_id = models.UUIDField()
    model = models.TextField(blank=True, default="")
    kind = models.CharField(max_length=16)
    window = models.CharField(max_length=16)
    mode = models.CharField(max_length=8)
    label = models.CharField(max_length=40)
    threshold = models.CharField(max_length=8, choices=Threshold)
    used = models.BigIntegerField(null=True)
    amount = models.BigIntegerField(null=True)
    hits = models.BigIntegerField(default=0)
    raised_at = models.DateTimeField(default=clock.now)
    delivered_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "alert"
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=[
                    "tenant", "level", "scope_id", "model", "kind", "window", "label", "threshold",
                ],
                name="alert_once_per_window",
            ),
            models.CheckConstraint(
                condition=Q(threshold__in=["50", "80", "100", "hit", "balance"]),
                name="alert_threshold_known",
            ),
            models.CheckConstraint(condition=Q(hits__gte=0), name="alert_hits_not_negative"),
        ]  # fmt: skip
        indexes = [
            models.Index(fields=["tenant", "label"], name="alert_label"),
            models.Index(
                fields=["id"], condition=Q(delivered_at__isnull=True), name="alert_undelivered"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.level} {self.kind} {self.label}: {self.threshold}"


class AlertLook(models.Model):
    """Up to which usage and which policies an organisation's limits were looked at."""

    tenant = models.OneToOneField(
        "tenants.Organisation", primary_key=True, on_delete=models.PROTECT, related_name="+"
    )
    revision = models.BigIntegerField(default=0)
    version = models.BigIntegerField(default=0)
    looked_at = models.DateTimeField(default=clock.now)

    objects: TenantManager[Any] = TenantManager()

    class Meta:
        db_table = "alert_look"

    def __str__(self) -> str:
        return f"{self.tenant_id} at {self.looked_at}"


class HitSweep(TenantModel):
    """Hits that were taken from Redis and are counted; its id is the one Redis names them by."""

    counted_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "hit_sweep"
        indexes = [models.Index(fields=["counted_at"], name="hit_sweep_counted_at")]

    def __str__(self) -> str:
        return str(self.id)
