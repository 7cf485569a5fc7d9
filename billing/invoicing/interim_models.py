"""When an organisation is invoiced before its month is over."""

from django.db import models
from django.db.models import Q

from meterplane.kernel import clock
from tenants.scoping import TenantModel


class InterimThreshold(TenantModel):
    """From which unbilled spend on an organisation gets an interim invoice; null: never, whatever
    the installation's default is."""

    amount_minor = models.BigIntegerField(null=True)
    changed_by = models.CharField(max_length=120)
    changed_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "interim_threshold"
        constraints = [
            models.UniqueConstraint(fields=["tenant"], name="interim_threshold_one"),
            models.CheckConstraint(
                condition=Q(amount_minor__isnull=True) | Q(amount_minor__gt=0),
                name="interim_threshold_positive",
            ),
        ]

    def __str__(self) -> str:
        return "off" if self.amount_minor is None else str(self.amount_minor)
