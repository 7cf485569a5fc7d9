"""The numbers of a tenant's invoices."""

from django.db import models

from tenants.scoping import TenantModel


class InvoiceSeries(TenantModel):
    """The tenant's gapless numbers: `<prefix>-000001`. The row's lock is what makes them so."""

    prefix = models.CharField(max_length=48, unique=True)
    last_number = models.PositiveIntegerField(default=0)

    class Meta:
        db_table = "invoice_series"
        verbose_name_plural = "invoice series"
        constraints = [models.UniqueConstraint(fields=["tenant"], name="invoice_series_one")]

    def __str__(self) -> str:
        return f"{self.prefix}-{self.last_number:06d}"
