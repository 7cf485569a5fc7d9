"""What the gateways read, and what they have been granted."""

from typing import Any

from django.db import models

from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from meterplane.policy.alert_models import Alert, AlertLook, HitSweep
from tenants.scoping import TenantManager, TenantModel

__all__ = [
    "Alert",
    "AlertLook",
    "BudgetEpoch",
    "BudgetGrant",
    "BudgetWindow",
    "GatewayModel",
    "GatewayPolicy",
    "HitSweep",
]


class GatewayPolicy(models.Model):
    """One API key's compiled policy: `contracts.policy.KeyPolicy` as JSON, found by key digest."""

    key_id = models.UUIDField(primary_key=True)
    tenant = models.ForeignKey("tenants.Organisation", on_delete=models.PROTECT, related_name="+")
    digest = models.BinaryField(unique=True)
    version = models.BigIntegerField()
    document = models.JSONField()
    compiled_at = models.DateTimeField(default=clock.now)

    objects: TenantManager[Any] = TenantManager()

    class Meta:
        db_table = "gateway_policy"

    def __str__(self) -> str:
        return f"{self.key_id} v{self.version}"


class GatewayModel(models.Model):
    """One version of how a model is reached: `contracts.serving.ModelServing` as JSON.

    The same for every organisation. Rows are added and forgotten, never changed.
    """

    pk = models.CompositePrimaryKey("name", "version")
    name = models.TextField()
    version = models.BigIntegerField()
    document = models.JSONField()
    compiled_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "gateway_model"
        constraints = [
            models.CheckConstraint(
                condition=models.Q(version__gt=0), name="gateway_model_version_given"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"


class BudgetWindow(TenantModel):
    """How much of a scope's limit was handed to the gateways' pool in one window.

    `granted_nano <= limit_nano` when granted: the function `take_budget` is the only one that adds.
    `block_nano` is the pace of its blocks, `granted_at` when the last was taken. `revision` rises
    with every change. `window` is a label of `contracts.windows`.
    """

    level = models.CharField(max_length=16)
    scope_id = models.UUIDField()
    model = models.TextField(default="", db_default="")
    window = models.CharField(max_length=16)
    limit_nano = models.BigIntegerField()
    granted_nano = models.BigIntegerField(default=0)
    block_nano = models.BigIntegerField(default=1, db_default=1)
    granted_at = models.DateTimeField(null=True)
    revision = models.BigIntegerField(default=0, db_default=0)
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)

    class Meta:
        db_table = "budget_window"
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "level", "scope_id", "model", "window"], name="budget_window_once"
            ),
            models.CheckConstraint(
                condition=models.Q(granted_nano__gte=0), name="budget_window_granted_positive"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.level} {self.window}: {self.granted_nano} of {self.limit_nano}"


class BudgetEpoch(models.Model):
    """One life of the admission Redis, as an organisation's gateways saw it.

    `accounted_at` is when its grants were reduced to what was spent of them: nothing is granted in
    it from then on.
    """

    pk = models.CompositePrimaryKey("tenant_id", "epoch")
    tenant = models.ForeignKey("tenants.Organisation", on_delete=models.PROTECT, related_name="+")
    epoch = models.TextField()
    first_seen_at = models.DateTimeField(default=clock.now)
    accounted_at = models.DateTimeField(null=True)

    objects: TenantManager[Any] = TenantManager()

    class Meta:
        db_table = "budget_epoch"

    def __str__(self) -> str:
        return f"{self.epoch} since {self.first_seen_at}"


class BudgetGrant(TenantModel):
    """One block that `take_budget` granted, or the sum of older ones of its window and epoch.

    `credited`: its pool is known to have it, or to belong to another epoch and never to get it.
    One that is not `is_pooled` was spent before its window began, and is no pool's.
    """

    id = models.UUIDField(primary_key=True)
    level = models.CharField(max_length=16)
    scope_id = models.UUIDField()
    model = models.TextField(default="")
    window = models.CharField(max_length=16)
    epoch = models.TextField()
    amount_nano = models.BigIntegerField()
    granted_at = models.DateTimeField(default=clock.now)
    credited = models.BooleanField(default=False)
    is_pooled = models.BooleanField(default=True, db_default=True)

    class Meta:
        db_table = "budget_grant"
        indexes = [
            models.Index(
                fields=["tenant", "level", "scope_id", "model", "window", "epoch"],
                name="budget_grant_window",
            ),
            models.Index(
                fields=["granted_at"],
                condition=models.Q(credited=False),
                name="budget_grant_uncredited",
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(amount_nano__gte=0), name="budget_grant_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.level} {self.window}: {self.amount_nano} in {self.epoch}"
