"""Price books. Global to the installation: prices are offered, contracts come with tenants.

Invariants held by PostgreSQL: prices and entries of a published version never change; it moves
draft -> published -> superseded and never back; the times two versions of one book apply do not
overlap and leave no gap (`superseded_at` of one is `effective_at` of the next).
"""

from django.db import models
from django.db.models import F, Q

from billing.pricing.contract_models import ContractEvent, TenantContract
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7

__all__ = [
    "ContractEvent",
    "Price",
    "PriceBook",
    "PriceBookVersion",
    "PriceEntry",
    "TenantContract",
]


class PriceBook(models.Model):
    """A named set of prices in one currency, whose versions follow each other in time."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=80, unique=True)
    currency = models.CharField(max_length=3)
    created_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "price_book"
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(currency__regex=r"^[A-Z]{3}$"), name="price_book_currency_iso"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.currency})"


class PriceBookVersion(models.Model):
    """One state of a book. Applies from `effective_at` until `superseded_at`, half-open, UTC."""

    class Status(models.TextChoices):
        DRAFT = "draft", "Draft"
        PUBLISHED = "published", "Published"
        SUPERSEDED = "superseded", "Superseded"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    book = models.ForeignKey(PriceBook, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    status = models.CharField(max_length=16, choices=Status, default=Status.DRAFT)
    effective_at = models.DateTimeField(null=True, blank=True)
    published_at = models.DateTimeField(null=True, blank=True)
    superseded_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "price_book_version"
        ordering = ["book", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["book", "number"], name="price_version_number_once"),
            models.UniqueConstraint(
                fields=["book"], condition=Q(status="published"), name="price_version_one_published"
            ),
            models.UniqueConstraint(
                fields=["book", "effective_at"], name="price_version_starts_once"
            ),
            models.CheckConstraint(
                condition=Q(
                    status="draft",
                    effective_at__isnull=True,
                    published_at__isnull=True,
                    superseded_at__isnull=True,
                )
                | Q(
                    status="published",
                    effective_at__isnull=False,
                    published_at__isnull=False,
                    superseded_at__isnull=True,
                )
                | Q(
                    status="superseded",
                    effective_at__isnull=False,
                    published_at__isnull=False,
                    superseded_at__gt=F("effective_at"),
                ),
                name="price_version_instants_follow_status",
            ),
        ]

    def __str__(self) -> str:
        return f"v{self.number} {self.status}"


class Price(models.Model):
    """Pico of the book's currency per unit of one meter of one model.

    `batch_unit_price_pico` is what the Batch API's lines pay. A version is published only if each
    model in it has all its batch prices or none; none means that batches cannot use the model.
    """

    class Meter(models.TextChoices):
        INPUT_TOKENS = "input_tokens", "Input tokens"
        OUTPUT_TOKENS = "output_tokens", "Output tokens"
        REQUESTS = "requests", "Requests"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    version = models.ForeignKey(PriceBookVersion, on_delete=models.CASCADE, related_name="prices")
    model = models.CharField(max_length=80)
    meter = models.CharField(max_length=16, choices=Meter)
    unit_price_pico = models.BigIntegerField()
    batch_unit_price_pico = models.BigIntegerField(null=True, blank=True)

    class Meta:
        db_table = "price"
        ordering = ["model", "meter"]
        constraints = [
            models.UniqueConstraint(fields=["version", "model", "meter"], name="price_once"),
            models.CheckConstraint(
                condition=Q(meter__in=["input_tokens", "output_tokens", "requests"]),
                name="price_meter_known",
            ),
            models.CheckConstraint(condition=Q(unit_price_pico__gte=0), name="price_not_negative"),
            models.CheckConstraint(
                condition=Q(batch_unit_price_pico__isnull=True) | Q(batch_unit_price_pico__gte=0),
                name="price_batch_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} {self.meter}"


class PriceEntry(models.Model):
    """One price of a version: a meter, what usage it matches, and a price model.

    What it may say is checked by `entry_json` before it is stored; the version's guard holds for
    entries as it does for prices.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    version = models.ForeignKey(PriceBookVersion, on_delete=models.CASCADE, related_name="entries")
    position = models.PositiveIntegerField()
    meter = models.CharField(max_length=64)
    match = models.JSONField(blank=True, default=dict)
    price_model = models.JSONField()
    display_name = models.CharField(max_length=120)

    class Meta:
        db_table = "price_entry"
        ordering = ["version", "position"]
        verbose_name_plural = "price entries"
        constraints = [
            models.UniqueConstraint(fields=["version", "position"], name="price_entry_place_once"),
            models.UniqueConstraint(
                fields=["version", "meter", "match"], name="price_entry_matches_once"
            ),
            models.CheckConstraint(
                condition=Q(meter__regex=r"^[a-z][a-z0-9_-]{0,63}$"), name="price_entry_meter_safe"
            ),
        ]

    def __str__(self) -> str:
        return self.display_name
