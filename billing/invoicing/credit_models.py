"""What an invoice gives back of the credit that an earlier one drew (see `credit_back`).

Invariants held by PostgreSQL, beside the checks below:
- A row is written once, with the invoice that gives back; its `id` is the source of the movements.
- What an invoice gives back is what its credit lines above zero say (a trigger looks when the
  transaction commits); no more comes back than was drawn (`credits`).
"""

from django.db import models
from django.db.models import F, Q

from tenants.scoping import TenantModel


class CreditGivenBack(TenantModel):
    """`invoice` corrects what a calendar month costs, and so much that `drawn_by` drew comes back.

    `month` is its first instant, UTC.
    """

    invoice = models.ForeignKey(
        "invoicing.Invoice", on_delete=models.PROTECT, related_name="gives_back"
    )
    drawn_by = models.ForeignKey("invoicing.Invoice", on_delete=models.PROTECT, related_name="+")
    month = models.DateTimeField()
    amount_minor = models.BigIntegerField()

    class Meta:
        db_table = "credit_given_back"
        constraints = [
            models.UniqueConstraint(
                fields=["invoice", "drawn_by", "month"], name="credit_given_back_once"
            ),
            models.CheckConstraint(
                condition=Q(amount_minor__gt=0), name="credit_given_back_positive"
            ),
            models.CheckConstraint(
                condition=~Q(invoice=F("drawn_by")), name="credit_given_back_of_an_earlier_one"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount_minor} of {self.month:%Y-%m}"
