"""How invoices are to be paid, and payments that an operator saw arrive.

Invariants held by PostgreSQL: an invoice keeps the terms it was issued under; a recorded payment is
written once, and once for each reference of an invoice; it is undone by a row that takes back the
whole of it, once.
"""

from django.db import models
from django.db.models import F, Q

from meterplane.kernel import clock
from tenants.scoping import TenantModel

DAYS_UNTIL_DUE_MAX = 365
DAYS_UNTIL_DUE_DEFAULT = 14
REFERENCE_CHARS_MAX = 100
REASON_CHARS_MAX = 200


class Method(models.TextChoices):
    """Who moves the money. Of a manual invoice the provider never hears."""

    CHARGE = "charge_automatically", "Charge automatically"
    SEND = "send_invoice", "Send an invoice to pay online"
    MANUAL = "manual", "Manual: by bank transfer"


_KNOWN = Q(method__in=["charge_automatically", "send_invoice", "manual"])
_DAYS = Q(days_until_due__gte=0, days_until_due__lte=DAYS_UNTIL_DUE_MAX)


class CollectionTerms(TenantModel):
    """What an organisation's next invoices are issued under."""

    method = models.CharField(max_length=20, choices=Method, default=Method.CHARGE)
    days_until_due = models.PositiveSmallIntegerField(default=DAYS_UNTIL_DUE_DEFAULT)
    changed_by = models.CharField(max_length=120)
    changed_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "collection_terms"
        constraints = [
            models.UniqueConstraint(fields=["tenant"], name="collection_terms_one"),
            models.CheckConstraint(condition=_KNOWN, name="collection_terms_method_known"),
            models.CheckConstraint(condition=_DAYS, name="collection_terms_days"),
        ]

    def __str__(self) -> str:
        return f"{self.method}, {self.days_until_due} days"


class InvoiceTerms(TenantModel):
    """What one invoice is issued under, decided when its collection begins."""

    invoice = models.OneToOneField(
        "invoicing.Invoice", on_delete=models.PROTECT, related_name="terms"
    )
    method = models.CharField(max_length=20, choices=Method)
    days_until_due = models.PositiveSmallIntegerField()
    created_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "invoice_terms"
        constraints = [
            models.CheckConstraint(condition=_KNOWN, name="invoice_terms_method_known"),
            models.CheckConstraint(condition=_DAYS, name="invoice_terms_days"),
        ]

    def __str__(self) -> str:
        return f"{self.method}, {self.days_until_due} days"


class RecordedPayment(TenantModel):
    """Money for a manual invoice that an operator saw on the bank account; or that it was none
    after all, which takes back the whole of another row; or, with no amount, that less is due than
    had arrived. `balance_minor` of it is beyond what was due, and so the customer's."""

    invoice = models.ForeignKey(
        "invoicing.Invoice", on_delete=models.PROTECT, related_name="recorded_payments"
    )
    amount_minor = models.BigIntegerField()
    balance_minor = models.BigIntegerField(default=0)
    # The invoice was written off: it is that loss which it makes smaller.
    is_recovery = models.BooleanField(default=False)
    paid_on = models.DateField()
    reference = models.CharField(max_length=REFERENCE_CHARS_MAX)
    takes_back = models.OneToOneField(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="taken_back_by"
    )
    reason = models.CharField(max_length=REASON_CHARS_MAX, blank=True, default="")
    recorded_by = models.CharField(max_length=120)
    recorded_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "recorded_payment"
        ordering = ["recorded_at", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["invoice", "reference"],
                condition=Q(amount_minor__gt=0),
                name="recorded_payment_reference_once",
            ),
            models.CheckConstraint(
                condition=Q(
                    amount_minor__gt=0,
                    takes_back__isnull=True,
                    balance_minor__gte=0,
                    balance_minor__lte=F("amount_minor"),
                )
                | Q(
                    amount_minor__lt=0,
                    takes_back__isnull=False,
                    balance_minor__lte=0,
                    balance_minor__gte=F("amount_minor"),
                )
                & ~Q(reason="")
                | Q(amount_minor=0, takes_back__isnull=True, balance_minor__gt=0),
                name="recorded_payment_is_one_of_three",
            ),
            models.CheckConstraint(
                condition=~Q(reference=""), name="recorded_payment_reference_given"
            ),
        ]

    def __str__(self) -> str:
        return self.reference
