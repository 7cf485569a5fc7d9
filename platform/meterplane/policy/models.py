"""What the gateways read, and what they have been granted."""

from typing import Any

from django.db import models

from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from tenants.scoping import TenantManager, TenantModel


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

    `granted_nano <= limit_nano` always: the function `take_budget` is the only writer.
    """

    scope = models.CharField(max_length=16)
    scope_id = models.UUIDField()
    window = models.CharField(max_length=16)
    limit_nano = models.BigIntegerField()
    granted_nano = models.BigIntegerField(default=0)
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)

    class Meta:
        db_table = "budget_window"
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "scope", "scope_id", "window"], name="budget_window_once"
            ),
            models.CheckConstraint(
                condition=models.Q(granted_nano__gte=0), name="budget_window_granted_positive"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.scope} {self.window}: {self.granted_nano} of {self.limit_nano}"
