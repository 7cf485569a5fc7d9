"""Closed periods, invoices and their lines.

Invariants held by PostgreSQL, beside the checks below:
- The closed periods of a tenant form one chain: each starts where its predecessor ends (a foreign
  key), no two start or end at the same instant, one has no predecessor. So they cannot overlap or
  leave a gap, whatever runs at once.
- A period has at most one invoice. What an invoice owes (period, currency, total, lines, hash) is
  written once and never changes; its number is given once, when it is open.
- Interim invoices of an open period are counted from 1 and follow each other in time; each invoice
  takes back exactly what interim ones before it billed of the period, and nothing twice.
- What an invoice gives back of credit is what its credit lines above zero say (`credit_models`).
- The lines add up to the subtotal and the taxes to what `tax_*_minor` say; the total is the
  subtotal with the taxes that come on top. Who is billed, and by whom, is frozen with the number.
- Status moves along draft -> finalising -> open -> paid | void | uncollectible only (a trigger
  holds the table).
"""

from django.db import models
from django.db.models import F, Q

from billing.invoicing.credit_models import CreditGivenBack
from billing.invoicing.document_models import (
    AssignedTax,
    BillingDetails,
    CreditNote,
    CreditNoteLine,
    CreditNoteSeries,
    CreditNoteTax,
    InvoiceTax,
    StripeTax,
    TaxedBy,
    TaxExemption,
    TaxMode,
    TaxRate,
)
from billing.invoicing.interim_models import InterimThreshold
from billing.invoicing.series_models import InvoiceSeries
from meterplane.kernel import clock
from tenants.scoping import TenantModel

__all__ = [
    "AssignedTax",
    "BillingDetails",
    "BillingPeriod",
    "CreditGivenBack",
    "CreditNote",
    "CreditNoteLine",
    "CreditNoteSeries",
    "CreditNoteTax",
    "InterimThreshold",
    "Invoice",
    "InvoiceLine",
    "InvoiceSeries",
    "InvoiceTax",
    "StripeTax",
    "TaxExemption",
    "TaxMode",
    "TaxRate",
    "TaxedBy",
]

LINE_KINDS = [
    "usage", "adjustment", "discount", "maximum", "minimum", "commitment", "credit", "interim",
]  # fmt: skip
# Each is a line of the final invoice, which has 250 at the payment provider.
INTERIMS_PER_PERIOD_MAX = 30


class BillingPeriod(TenantModel):
    """A span of a tenant's usage that has been rated for good; half-open, UTC.

    Recorded for empty periods too, without an invoice: a customer who used nothing gets no paper
    and no number is spent, yet the next period knows where to start.
    """

    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    follows_at = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(default=clock.now)
    content_hash = models.CharField(max_length=64)
    # Which usage had arrived (`metering.arrivals`); nothing of periods closed before it was kept.
    usage_seen_at = models.DateTimeField(null=True, blank=True)
    usage_snapshot = models.TextField(blank=True, default="", db_default="")

    class Meta:
        db_table = "billing_period"
        ordering = ["-ends_at"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "starts_at"], name="period_starts_once"),
            models.UniqueConstraint(fields=["tenant", "ends_at"], name="period_ends_once"),
            models.UniqueConstraint(
                fields=["tenant"],
                condition=Q(follows_at__isnull=True),
                name="period_one_first",
            ),
            models.CheckConstraint(
                condition=Q(ends_at__gt=F("starts_at")), name="period_not_empty"
            ),
            models.CheckConstraint(
                condition=Q(follows_at__isnull=True) | Q(follows_at=F("starts_at")),
                name="period_follows_its_predecessor",
            ),
            models.CheckConstraint(
                condition=Q(usage_seen_at__isnull=True, usage_snapshot="")
                | (Q(usage_seen_at__isnull=False) & ~Q(usage_snapshot="")),
                name="period_usage_seen",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.starts_at:%Y-%m-%d} to {self.ends_at:%Y-%m-%d}"


class Invoice(TenantModel):
    """What a tenant owes for one period, or an interim one: for what was used so far of a period
    that stays open. Amounts are in minor units of `currency`.

    An interim invoice starts where its period does, and ends at the instant that it was made for.
    """

    class Kind(models.TextChoices):
        PERIOD = "period", "Of a period"
        INTERIM = "interim", "Interim"

    class Status(models.TextChoices):
        DRAFT = "draft", "Draft"
        FINALISING = "finalising", "Finalising"
        OPEN = "open", "Open"
        PAID = "paid", "Paid"
        VOID = "void", "Void"
        UNCOLLECTIBLE = "uncollectible", "Uncollectible"

    class Collection(models.TextChoices):
        PENDING = "pending", "To be collected"
        AWAITING_PAYMENT = "awaiting_payment", "Waiting for the customer"
        CARRIED = "carried", "Too small alone: with the next invoice"
        PARKED = "parked", "Parked: needs a person"
        DONE = "done", "Done"

    kind = models.CharField(max_length=8, choices=Kind, default=Kind.PERIOD, db_default=Kind.PERIOD)
    period = models.OneToOneField(
        BillingPeriod, on_delete=models.PROTECT, related_name="invoice", null=True, blank=True
    )
    # Of an interim one: which of its period it is, and the usage that had arrived.
    interim_sequence = models.PositiveSmallIntegerField(null=True, blank=True)
    usage_seen_at = models.DateTimeField(null=True, blank=True)
    usage_snapshot = models.TextField(blank=True, default="", db_default="")
    number = models.CharField(max_length=60, null=True, blank=True)
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()
    status = models.CharField(max_length=16, choices=Status, default=Status.DRAFT)
    currency = models.CharField(max_length=3)
    total_minor = models.BigIntegerField()
    # Taxes that come on top of the lines, and those that the lines contain.
    tax_exclusive_minor = models.BigIntegerField(default=0, db_default=0)
    tax_inclusive_minor = models.BigIntegerField(default=0, db_default=0)
    subtotal_minor = models.GeneratedField(
        expression=F("total_minor") - F("tax_exclusive_minor"),
        output_field=models.BigIntegerField(),
        db_persist=True,
    )
    tax_note = models.CharField(max_length=240, blank=True, default="", db_default="")
    # What Stripe taxes is known, and part of the total, from `taxed_at` on: before it is open.
    taxed_by = models.CharField(
        max_length=8, choices=TaxedBy, default=TaxedBy.RATES, db_default=TaxedBy.RATES
    )
    taxed_at = models.DateTimeField(null=True, blank=True)
    # Frozen when it gets its number; null before, and of invoices from before this was kept.
    buyer = models.JSONField(null=True, blank=True)
    seller = models.JSONField(null=True, blank=True)
    content_hash = models.CharField(max_length=64)
    created_at = models.DateTimeField(default=clock.now)
    finalised_at = models.DateTimeField(null=True, blank=True)
    paid_at = models.DateTimeField(null=True, blank=True)
    # What the provider says was paid; null where it was what was due, or nobody said.
    paid_minor = models.BigIntegerField(null=True, blank=True)
    # Its payments were recorded one by one, each with a ledger entry of its own.
    paid_in_parts = models.BooleanField(default=False, db_default=False)
    hosted_url = models.URLField(max_length=500, blank=True, default="")
    # How collecting it stands. A parked invoice says in `collection_note` what differs.
    collection_state = models.CharField(
        max_length=20, choices=Collection, default=Collection.PENDING
    )
    collection_note = models.TextField(blank=True, default="")
    payment_attempts = models.PositiveIntegerField(default=0)

    class Meta:
        db_table = "invoice"
        ordering = ["-period_end"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "number"], name="invoice_number_once"),
            models.CheckConstraint(
                condition=Q(
                    status__in=["draft", "finalising", "open", "paid", "void", "uncollectible"]
                ),
                name="invoice_status_known",
            ),
            models.CheckConstraint(
                condition=Q(
                    collection_state__in=[
                        "pending",
                        "awaiting_payment",
                        "carried",
                        "parked",
                        "done",
                    ]
                ),
                name="invoice_collection_known",
            ),
            models.CheckConstraint(
                condition=Q(currency__regex=r"^[A-Z]{3}$"), name="invoice_currency_iso"
            ),
            models.CheckConstraint(
                condition=Q(period_end__gt=F("period_start")), name="invoice_period_not_empty"
            ),
            models.CheckConstraint(
                condition=Q(
                    status__in=["draft", "finalising"],
                    number__isnull=True,
                    finalised_at__isnull=True,
                )
                | (
                    ~Q(status__in=["draft", "finalising"])
                    & Q(number__isnull=False, finalised_at__isnull=False)
                ),
                name="invoice_numbered_iff_finalised",
            ),
            models.UniqueConstraint(
                fields=["tenant", "period_start", "interim_sequence"],
                condition=Q(kind="interim"),
                name="invoice_interim_once",
            ),
            models.CheckConstraint(
                condition=Q(
                    kind="period",
                    period__isnull=False,
                    interim_sequence__isnull=True,
                    usage_seen_at__isnull=True,
                    usage_snapshot="",
                )
                | Q(
                    kind="interim",
                    period__isnull=True,
                    interim_sequence__gte=1,
                    interim_sequence__lte=INTERIMS_PER_PERIOD_MAX,
                    usage_seen_at__isnull=False,
                )
                & ~Q(usage_snapshot=""),
                name="invoice_of_a_period_or_interim",
            ),
            models.CheckConstraint(
                condition=Q(status="paid", paid_at__isnull=False)
                | (~Q(status="paid") & Q(paid_at__isnull=True)),
                name="invoice_paid_at_iff_paid",
            ),
            models.CheckConstraint(
                condition=Q(paid_minor__isnull=True) | Q(status="paid", paid_minor__gte=0),
                name="invoice_paid_minor_of_a_paid_one",
            ),
            models.CheckConstraint(
                condition=Q(paid_in_parts=False) | Q(status="paid", paid_minor__isnull=False),
                name="invoice_paid_in_parts_of_a_paid_one",
            ),
            models.CheckConstraint(
                condition=Q(taxed_by="rates", taxed_at__isnull=True)
                | Q(taxed_by="stripe")
                & (Q(taxed_at__isnull=False) | Q(status__in=["draft", "finalising"])),
                name="invoice_taxed_before_it_is_open",
            ),
            models.CheckConstraint(
                condition=Q(total_minor=F("subtotal_minor") + F("tax_exclusive_minor")),
                name="invoice_total_is_subtotal_and_tax",
            ),
        ]

    def __str__(self) -> str:
        return self.number or f"{self.status} {self.period_start:%Y-%m-%d}"

    @property
    def is_issued(self) -> bool:
        """Whether it has its number: before, nobody has been told of it."""
        return self.status not in (self.Status.DRAFT, self.Status.FINALISING)

    @property
    def awaits_taxes(self) -> bool:
        """Whether Stripe has yet to say what they are."""
        return self.taxed_by == TaxedBy.STRIPE and self.taxed_at is None


class InvoiceLine(TenantModel):
    """One rated line, what a credit grant pays or takes back (above zero), or what an interim
    invoice billed already. `id` is its uid at the payment provider too.

    `period_start` and `period_end` name the period the usage belongs to: for a late line that is
    an older one than the invoice's. A plain unit price has its price here; an entry that is more
    has `price_model` and `breakdown` instead, and no model if it matched several; what a contract
    says (`discount` and the like) has an amount alone, and so has what a credit grant pays.
    `entry_id` is of a version's or a contract's entry; lines from before there were entries have
    none.
    """

    class Kind(models.TextChoices):
        USAGE = "usage", "Usage"
        ADJUSTMENT = "adjustment", "Adjustment"
        DISCOUNT = "discount", "Discount"
        MAXIMUM = "maximum", "Maximum spend"
        MINIMUM = "minimum", "Minimum spend"
        COMMITMENT = "commitment", "Commitment"
        CREDIT = "credit", "Credit"
        INTERIM = "interim", "Already invoiced"

    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="lines")
    position = models.PositiveIntegerField()
    kind = models.CharField(max_length=16, choices=Kind, default=Kind.USAGE, db_default=Kind.USAGE)
    model = models.CharField(max_length=80, blank=True)
    service_tier = models.CharField(max_length=16, default="standard", db_default="standard")
    meter = models.CharField(max_length=64, blank=True)
    display_name = models.CharField(max_length=120, blank=True, default="", db_default="")
    description = models.CharField(max_length=500)
    quantity = models.DecimalField(max_digits=56, decimal_places=18)
    unit_price_pico = models.BigIntegerField(null=True)
    # DO_NOTHING: the database refuses by itself; Django would look for lines of every tenant.
    price_version = models.ForeignKey(
        "pricing.PriceBookVersion", on_delete=models.DO_NOTHING, related_name="+", null=True
    )
    entry_id = models.UUIDField(null=True)
    contract_id = models.UUIDField(null=True)
    price_model = models.JSONField(null=True)
    breakdown = models.JSONField(null=True)
    credit_grant_id = models.UUIDField(null=True)
    interim_id = models.UUIDField(null=True)
    amount_minor = models.BigIntegerField()
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()
    is_late = models.BooleanField(default=False)

    class Meta:
        db_table = "invoice_line"
        ordering = ["invoice", "position"]
        indexes = [
            models.Index(fields=["tenant", "period_start", "period_end"], name="line_by_period")
        ]
        constraints = [
            models.UniqueConstraint(fields=["invoice", "position"], name="line_position_once"),
            models.UniqueConstraint(
                fields=[
                    "invoice",
                    "period_start",
                    "kind",
                    "model",
                    "service_tier",
                    "meter",
                    "price_version",
                    "entry_id",
                    "contract_id",
                    "credit_grant_id",
                    "interim_id",
                ],
                nulls_distinct=False,
                name="line_once",
            ),
            models.CheckConstraint(
                condition=(Q(kind="credit", credit_grant_id__isnull=False) & ~Q(amount_minor=0))
                | (~Q(kind="credit") & Q(credit_grant_id__isnull=True)),
                name="line_of_a_credit_grant",
            ),
            models.CheckConstraint(
                condition=Q(
                    kind="interim", interim_id__isnull=False, amount_minor__lt=0, quantity=0
                )
                | (~Q(kind="interim") & Q(interim_id__isnull=True)),
                name="line_of_an_interim",
            ),
            models.CheckConstraint(condition=Q(kind__in=LINE_KINDS), name="line_kind_known"),
            models.CheckConstraint(
                condition=Q(service_tier__in=["standard", "batch"]), name="line_tier_known"
            ),
            models.CheckConstraint(
                condition=~Q(kind="usage") | Q(quantity__gt=0), name="line_quantity_positive"
            ),
            models.CheckConstraint(
                condition=~Q(kind="usage")
                | Q(unit_price_pico__isnull=False, price_version__isnull=False)
                | Q(price_model__isnull=False, breakdown__isnull=False, entry_id__isnull=False),
                name="line_says_its_price",
            ),
            models.CheckConstraint(
                condition=Q(kind__in=["usage", "adjustment", "credit", "interim"])
                | Q(quantity=0, unit_price_pico__isnull=True, contract_id__isnull=False),
                name="line_of_a_contract",
            ),
            models.CheckConstraint(
                condition=Q(period_end__gt=F("period_start")), name="line_period_not_empty"
            ),
        ]

    def __str__(self) -> str:
        return self.description
