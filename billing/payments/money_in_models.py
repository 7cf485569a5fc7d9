"""Cards being kept, credit being paid ahead, and when that is done by itself.

What was asked for never changes (a trigger holds that); only how it stands does.
"""

from django.db import models
from django.db.models import F, Q

from meterplane.kernel import clock
from tenants.scoping import TenantModel


class CardSetup(TenantModel):
    """A visit to the provider's page where a card is kept. Chosen or expired, it is over."""

    class State(models.TextChoices):
        WANTED = "wanted", "Wanted"
        CHOSEN = "chosen", "Chosen"
        EXPIRED = "expired", "Expired"

    checkout_id = models.CharField(max_length=128, blank=True, default="")
    state = models.CharField(max_length=16, choices=State, default=State.WANTED)
    payment_method = models.CharField(max_length=64, blank=True, default="")
    checked_at = models.DateTimeField(default=clock.now)
    created_by = models.CharField(max_length=120)
    created_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "card_setup"
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(
                fields=["checked_at"], condition=Q(state="wanted"), name="card_setup_wanted"
            )
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(state="chosen") & ~Q(payment_method="")
                | Q(state__in=["wanted", "expired"], payment_method=""),
                name="card_setup_state_known",
            )
        ]

    def __str__(self) -> str:
        return f"card {self.state}"


class TopUp(TenantModel):
    """Credit to be paid ahead, by a person at a checkout or by itself from the card on file.

    `payment_id` is the checkout's or the charge's at the provider. Paid is for ever.
    """

    class Origin(models.TextChoices):
        PERSON = "person", "Bought"
        AUTO = "auto", "Reloaded by itself"

    class State(models.TextChoices):
        WANTED = "wanted", "Wanted"  # not known to be paid yet
        PAID = "paid", "Paid"
        FAILED = "failed", "Failed"
        EXPIRED = "expired", "Expired"
        PARKED = "parked", "Parked"  # paid, but not what was asked for: a person must look

    origin = models.CharField(max_length=8, choices=Origin, default=Origin.PERSON)
    amount_minor = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    state = models.CharField(max_length=16, choices=State, default=State.WANTED)
    payment_id = models.CharField(max_length=128, blank=True, default="")
    grant = models.OneToOneField(
        "credits.CreditGrant", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    note = models.TextField(blank=True, default="")
    idempotency_key = models.CharField(max_length=120)
    created_by = models.CharField(max_length=120)
    created_at = models.DateTimeField(default=clock.now)
    checked_at = models.DateTimeField(default=clock.now)
    settled_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "top_up"
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["checked_at"], condition=Q(state="wanted"), name="top_up_wanted"),
            models.Index(fields=["tenant", "-created_at"], name="top_up_newest"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "idempotency_key"], name="top_up_key_once"),
            models.UniqueConstraint(
                fields=["tenant"],
                condition=Q(origin="auto", state__in=["wanted", "parked"]),
                name="top_up_one_reload_at_a_time",
            ),
            models.CheckConstraint(condition=Q(amount_minor__gt=0), name="top_up_is_something"),
            models.CheckConstraint(
                condition=Q(state="paid", grant__isnull=False)
                | Q(state__in=["wanted", "failed", "expired", "parked"], grant__isnull=True),
                name="top_up_paid_is_granted",
            ),
            models.CheckConstraint(
                condition=Q(origin__in=["person", "auto"]), name="top_up_origin_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.amount_minor} {self.currency}: {self.state}"


class AutoReload(TenantModel):
    """When an organisation's credit is paid ahead by itself. `paused_at`: a charge came to nothing,
    and none is tried until the card changes or a person resumes."""

    is_on = models.BooleanField(default=False)
    threshold_minor = models.BigIntegerField()
    amount_minor = models.BigIntegerField()
    month_max_minor = models.BigIntegerField()
    paused_at = models.DateTimeField(null=True, blank=True)
    pause_note = models.TextField(blank=True, default="")
    checked_at = models.DateTimeField(default=clock.now)
    changed_by = models.CharField(max_length=120)
    changed_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "auto_reload"
        constraints = [
            models.UniqueConstraint(fields=["tenant"], name="auto_reload_once"),
            models.CheckConstraint(
                condition=Q(threshold_minor__gt=0, amount_minor__gt=0)
                & Q(month_max_minor__gte=F("amount_minor")),
                name="auto_reload_makes_sense",
            ),
        ]

    def __str__(self) -> str:
        return "on" if self.is_on else "off"
