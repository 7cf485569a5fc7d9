"""What an invoice says beside its lines: who is billed, which taxes, what was credited.

Invariants held by PostgreSQL, beside the checks below:
- A tax rate never changes, for invoices were made with it; it can be retired.
- The taxes of an invoice, and credit notes with their lines and taxes, are written once.
- The taxes of an invoice add up to what it says it contains, and so do a credit note's lines and
  taxes, to the cent (a trigger looks when the transaction commits).
- A line is never credited beyond its amount or quantity, whatever runs at once.
- The numbers of credit notes have no gaps, and are a series of their own.
- Whoever has Stripe compute taxes has no rates of the operator's, and the other way round.
"""

from django.db import models
from django.db.models import F, Q

from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from tenants.scoping import TenantModel

ADDRESS_LINES_MAX = 6
ADDRESS_LINE_CHARS_MAX = 100


class TaxMode(models.TextChoices):
    """Whether a tax is in the prices already, or comes on top of them."""

    EXCLUSIVE = "exclusive", "On top of prices"
    INCLUSIVE = "inclusive", "Included in prices"


class TaxRate(models.Model):
    """A tax: `percentage` is exact, 19 is 19 %. The operator's, the same for every organisation."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=40)
    percentage = models.DecimalField(max_digits=7, decimal_places=4)
    mode = models.CharField(max_length=9, choices=TaxMode, default=TaxMode.EXCLUSIVE)
    country = models.CharField(max_length=2, blank=True, default="")
    label = models.CharField(max_length=80, blank=True, default="")
    created_at = models.DateTimeField(default=clock.now)
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "tax_rate"
        ordering = ["name", "percentage"]
        constraints = [
            models.CheckConstraint(
                condition=Q(percentage__gte=0, percentage__lte=100), name="tax_rate_percentage"
            ),
            models.CheckConstraint(
                condition=Q(mode__in=["exclusive", "inclusive"]), name="tax_rate_mode_known"
            ),
            models.CheckConstraint(
                condition=Q(country="") | Q(country__regex=r"^[A-Z]{2}$"),
                name="tax_rate_country_iso",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.percentage.normalize():f} %"


class AssignedTax(TenantModel):
    """An organisation's invoices are taxed at this rate, beside its other ones."""

    rate = models.ForeignKey(TaxRate, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "assigned_tax"
        constraints = [models.UniqueConstraint(fields=["tenant", "rate"], name="tax_assigned_once")]

    def __str__(self) -> str:
        return str(self.rate_id)


class TaxedBy(models.TextChoices):
    """Who says what tax is on an invoice."""

    RATES = "rates", "Rates of our own"
    STRIPE = "stripe", "Stripe"


class StripeTax(TenantModel):
    """The organisation's invoices are taxed by Stripe, instead of at assigned rates."""

    created_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "stripe_tax"
        constraints = [models.UniqueConstraint(fields=["tenant"], name="stripe_tax_one")]

    def __str__(self) -> str:
        return "taxed by Stripe"


class TaxExemption(TenantModel):
    """Why an organisation's invoices carry no tax, whatever its rates are."""

    class Kind(models.TextChoices):
        EXEMPT = "exempt", "Exempt"
        REVERSE_CHARGE = "reverse_charge", "Reverse charge"

    kind = models.CharField(max_length=16, choices=Kind)
    reason = models.CharField(max_length=200)
    created_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "tax_exemption"
        constraints = [
            models.UniqueConstraint(fields=["tenant"], name="tax_exemption_one"),
            models.CheckConstraint(
                condition=Q(kind__in=["exempt", "reverse_charge"]) & ~Q(reason=""),
                name="tax_exemption_said",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


class BillingDetails(TenantModel):
    """Who invoices are made out to: the address by lines, `tax_ids` as `{"type", "value"}`."""

    name = models.CharField(max_length=120, blank=True, default="")
    address = models.CharField(
        max_length=ADDRESS_LINES_MAX * (ADDRESS_LINE_CHARS_MAX + 1), blank=True, default=""
    )
    country = models.CharField(max_length=2, blank=True, default="")
    tax_ids = models.JSONField(default=list, blank=True)
    purchase_order = models.CharField(max_length=40, blank=True, default="")
    changed_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "billing_details"
        constraints = [
            models.UniqueConstraint(fields=["tenant"], name="billing_details_one"),
            models.CheckConstraint(
                condition=Q(country="") | Q(country__regex=r"^[A-Z]{2}$"),
                name="billing_country_iso",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class InvoiceTax(TenantModel):
    """One tax of one invoice. `id` is the uid its line is known by at the payment provider.

    With an `interim_id`, what that interim invoice had of this tax, taken back; `note` names it.
    One that Stripe computed is of no rate here: `provider_rate` is its name there, `note` says so.
    """

    invoice = models.ForeignKey("invoicing.Invoice", on_delete=models.PROTECT, related_name="taxes")
    position = models.PositiveSmallIntegerField()
    rate = models.ForeignKey(TaxRate, on_delete=models.PROTECT, related_name="+", null=True)
    provider_rate = models.CharField(max_length=64, blank=True, default="", db_default="")
    name = models.CharField(max_length=40)
    percentage = models.DecimalField(max_digits=7, decimal_places=4)
    mode = models.CharField(max_length=9, choices=TaxMode)
    country = models.CharField(max_length=2, blank=True, default="")
    taxable_minor = models.BigIntegerField(help_text="what it is a percentage of, without tax")
    amount_minor = models.BigIntegerField()
    interim_id = models.UUIDField(null=True)
    note = models.CharField(max_length=100, blank=True, default="", db_default="")

    class Meta:
        db_table = "invoice_tax"
        ordering = ["invoice", "position"]
        constraints = [
            models.UniqueConstraint(fields=["invoice", "position"], name="tax_position_once"),
            models.UniqueConstraint(
                fields=["invoice", "rate", "interim_id", "provider_rate"],
                nulls_distinct=False,
                name="tax_rate_once",
            ),
            models.CheckConstraint(
                condition=Q(mode__in=["exclusive", "inclusive"]), name="invoice_tax_mode_known"
            ),
            models.CheckConstraint(
                condition=Q(interim_id__isnull=True) | ~Q(note=""), name="tax_of_an_interim_noted"
            ),
            models.CheckConstraint(
                condition=Q(rate__isnull=False, provider_rate="")
                | Q(rate__isnull=True, interim_id__isnull=True, mode="exclusive")
                & ~Q(provider_rate="")
                & ~Q(note=""),
                name="tax_of_a_rate_or_provider",
            ),
        ]

    def __str__(self) -> str:
        text = f"{self.name} {self.percentage.normalize():f} %"
        return f"{text}, {self.note}" if self.note else text


class CreditNoteSeries(TenantModel):
    """The tenant's gapless numbers of credit notes: `<prefix>-000001`."""

    prefix = models.CharField(max_length=52, unique=True)
    last_number = models.PositiveIntegerField(default=0)

    class Meta:
        db_table = "credit_note_series"
        verbose_name_plural = "credit note series"
        constraints = [models.UniqueConstraint(fields=["tenant"], name="credit_note_series_one")]

    def __str__(self) -> str:
        return f"{self.prefix}-{self.last_number:06d}"


class CreditNote(TenantModel):
    """What is given back of a finalised invoice, in its currency: money, or with a total of zero
    nothing but credit that it drew.

    `effect` is what it does: it lowers what an open invoice asks for, or it is money to give back.
    """

    class Reason(models.TextChoices):
        BILLING_ERROR = "billing_error", "Billing error"
        SERVICE_FAILURE = "service_failure", "Service failure"
        DUPLICATE = "duplicate", "Duplicate"
        GOODWILL = "goodwill", "Goodwill"
        OTHER = "other", "Other"

    class Effect(models.TextChoices):
        LOWERS_DUE = "lowers_due", "Lowers what is due"
        REFUND = "refund", "To be refunded"
        BALANCE = "balance", "Kept as balance"

    invoice = models.ForeignKey(
        "invoicing.Invoice", on_delete=models.PROTECT, related_name="credit_notes"
    )
    number = models.CharField(max_length=60)
    reason = models.CharField(max_length=16, choices=Reason)
    memo = models.CharField(max_length=400, blank=True, default="")
    effect = models.CharField(max_length=12, choices=Effect)
    currency = models.CharField(max_length=3)
    subtotal_minor = models.BigIntegerField()
    tax_exclusive_minor = models.BigIntegerField(default=0)
    tax_inclusive_minor = models.BigIntegerField(default=0)
    total_minor = models.BigIntegerField()
    idempotency_key = models.CharField(max_length=100)
    request_digest = models.CharField(max_length=64)
    buyer = models.JSONField(null=True)
    seller = models.JSONField(null=True)
    created_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "credit_note"
        ordering = ["-created_at", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "number"], name="credit_note_number_once"),
            models.UniqueConstraint(
                fields=["tenant", "idempotency_key"], name="credit_note_asked_once"
            ),
            models.CheckConstraint(
                condition=Q(total_minor=F("subtotal_minor") + F("tax_exclusive_minor")),
                name="credit_note_total_is_subtotal_and_tax",
            ),
            models.CheckConstraint(condition=Q(total_minor__gte=0), name="credit_note_gives_back"),
            models.CheckConstraint(
                condition=Q(effect__in=["lowers_due", "refund", "balance"]),
                name="credit_note_effect_known",
            ),
            models.CheckConstraint(
                condition=Q(
                    reason__in=[
                        "billing_error", "service_failure", "duplicate", "goodwill", "other",
                    ]
                ),
                name="credit_note_reason_known",
            ),
        ]  # fmt: skip

    def __str__(self) -> str:
        return self.number


class CreditNoteLine(TenantModel):
    """What of one invoice line is given back; `amount_minor` has the line's sign.

    `quantity` is null where an amount was asked for.
    """

    note = models.ForeignKey(CreditNote, on_delete=models.PROTECT, related_name="lines")
    position = models.PositiveIntegerField()
    line = models.ForeignKey("invoicing.InvoiceLine", on_delete=models.PROTECT, related_name="+")
    quantity = models.DecimalField(max_digits=38, decimal_places=12, null=True)
    amount_minor = models.BigIntegerField()

    class Meta:
        db_table = "credit_note_line"
        ordering = ["note", "position"]
        constraints = [
            models.UniqueConstraint(fields=["note", "position"], name="credit_position_once"),
            models.UniqueConstraint(fields=["note", "line"], name="credit_line_once"),
            models.CheckConstraint(condition=~Q(amount_minor=0), name="credit_line_gives_back"),
            models.CheckConstraint(
                condition=Q(quantity__isnull=True) | Q(quantity__gt=0),
                name="credit_quantity_positive",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.line_id}: {self.amount_minor}"


class CreditNoteTax(TenantModel):
    """What of one tax of the invoice is given back with a credit note's lines."""

    note = models.ForeignKey(CreditNote, on_delete=models.PROTECT, related_name="taxes")
    tax = models.ForeignKey(InvoiceTax, on_delete=models.PROTECT, related_name="+")
    amount_minor = models.BigIntegerField()

    class Meta:
        db_table = "credit_note_tax"
        ordering = ["note", "tax"]
        constraints = [models.UniqueConstraint(fields=["note", "tax"], name="credit_tax_once")]

    def __str__(self) -> str:
        return f"{self.tax_id}: {self.amount_minor}"
