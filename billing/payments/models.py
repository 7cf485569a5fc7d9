"""Where each conversation with the payment provider stands.

A run per invoice, a row per step. A step's parameters, digest and idempotency key are frozen before
it is sent for the first time (a trigger holds that): a key that is sent again always carries the
same bytes. The inbox of provider events belongs to no tenant and is read by the system role only.
"""

from django.db import models
from django.db.models import Q

from billing.payments.dunning_models import (
    DunningCase,
    DunningOverride,
    DunningPolicy,
    DunningStep,
    DunningSuspension,
)
from billing.payments.terms_models import CollectionTerms, InvoiceTerms, Method, RecordedPayment
from meterplane.kernel import clock
from tenants.scoping import TenantModel

__all__ = [
    "BillingAccount",
    "CollectionTerms",
    "DunningCase",
    "DunningOverride",
    "DunningPolicy",
    "DunningStep",
    "DunningSuspension",
    "InvoiceTerms",
    "Method",
    "PaymentRun",
    "PaymentStep",
    "RecordedPayment",
    "WebhookEvent",
]


class BillingAccount(TenantModel):
    """A tenant's customer object at the provider."""

    provider = models.CharField(max_length=16)
    customer_id = models.CharField(max_length=64)
    default_payment_method = models.CharField(max_length=64, blank=True, default="")
    created_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "billing_account"
        constraints = [
            models.UniqueConstraint(fields=["tenant", "provider"], name="billing_account_once"),
            models.UniqueConstraint(
                fields=["provider", "customer_id"], name="billing_account_customer_once"
            ),
        ]

    def __str__(self) -> str:
        return self.customer_id


class PaymentRun(TenantModel):
    """Bringing one invoice to the provider. Held by one worker at a time through a lease."""

    invoice = models.OneToOneField(
        "invoicing.Invoice", on_delete=models.PROTECT, related_name="payment_run"
    )
    provider = models.CharField(max_length=16)
    customer_id = models.CharField(max_length=64)
    provider_invoice_id = models.CharField(max_length=64, null=True, blank=True)
    # SHA-256 over what must arrive at the provider: lines, amounts, currency, total.
    digest = models.CharField(max_length=64)
    lease_token = models.UUIDField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(default=clock.now)
    checked_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "payment_run"
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["provider", "provider_invoice_id"], name="payment_run_provider_invoice_once"
            ),
            models.CheckConstraint(
                condition=Q(lease_token__isnull=True, lease_until__isnull=True)
                | Q(lease_token__isnull=False, lease_until__isnull=False),
                name="payment_run_lease_whole",
            ),
        ]

    def __str__(self) -> str:
        return f"run of {self.invoice_id}"


_KINDS_OF_A_RUN = [
    "draft", "lines", "verify", "finalise", "send", "pay", "mirror", "void", "write_off",
]  # fmt: skip
_KINDS_OF_A_SUBJECT = ["checkout", "charge", "refund", "credit_note"]


class PaymentStep(TenantModel):
    """One call to the provider, or one reading of it, that must be got behind us.

    It is a step of a run, or of what `subject_id` names: a top-up, a refund, a credit note; one of
    neither makes the tenant's customer. `parameters` is canonical JSON text, not jsonb, so that
    what is sent twice is the same twice.
    """

    class Kind(models.TextChoices):
        CUSTOMER = "customer", "Create the customer"
        DRAFT = "draft", "Create the draft invoice"
        LINES = "lines", "Attach the lines"
        VERIFY = "verify", "Verify line by line"
        FINALISE = "finalise", "Finalise"
        SEND = "send", "Send it to the customer"
        PAY = "pay", "Charge the customer"
        MIRROR = "mirror", "Mirror the outcome"
        VOID = "void", "Void"
        WRITE_OFF = "write_off", "Mark uncollectible"
        CHECKOUT = "checkout", "Open a checkout"
        CHARGE = "charge", "Charge for credit"
        REFUND = "refund", "Refund"
        CREDIT_NOTE = "credit_note", "Issue the credit note"

    class State(models.TextChoices):
        READY = "ready", "Ready"  # never sent
        SENT = "sent", "Sent, outcome not recorded"  # the same key may be sent again
        UNCLEAR = "unclear", "Answered with a server error"  # the key replays the error: look first
        DONE = "done", "Done"
        FAILED = "failed", "Failed"  # definitely without effect; a new revision takes over

    run = models.ForeignKey(
        PaymentRun, null=True, blank=True, on_delete=models.PROTECT, related_name="steps"
    )
    subject_id = models.UUIDField(null=True, blank=True)
    kind = models.CharField(max_length=16, choices=Kind)
    revision = models.PositiveIntegerField(default=1)
    parameters = models.TextField()
    digest = models.CharField(max_length=64)
    idempotency_key = models.CharField(max_length=200, unique=True)
    state = models.CharField(max_length=16, choices=State, default=State.READY)
    attempts = models.PositiveIntegerField(default=0)
    first_sent_at = models.DateTimeField(null=True, blank=True)
    last_sent_at = models.DateTimeField(null=True, blank=True)
    done_at = models.DateTimeField(null=True, blank=True)
    result_id = models.CharField(max_length=64, blank=True, default="")
    note = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "payment_step"
        ordering = ["created_at", "id"]
        constraints = [
            models.UniqueConstraint(fields=["run", "kind", "revision"], name="payment_step_once"),
            models.UniqueConstraint(
                fields=["subject_id", "kind", "revision"], name="payment_step_of_subject_once"
            ),
            models.CheckConstraint(
                condition=Q(kind="customer", run__isnull=True, subject_id__isnull=True)
                | Q(kind__in=_KINDS_OF_A_RUN, run__isnull=False, subject_id__isnull=True)
                | Q(kind__in=_KINDS_OF_A_SUBJECT, run__isnull=True, subject_id__isnull=False),
                name="payment_step_belongs",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["ready", "sent", "unclear", "done", "failed"]),
                name="payment_step_state_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.revision}: {self.state}"


class WebhookEvent(models.Model):
    """One event the provider delivered: a hint to re-read an object, stored once by its id."""

    event_id = models.CharField(primary_key=True, max_length=100)
    type = models.CharField(max_length=100)
    payload = models.JSONField()
    received_at = models.DateTimeField(default=clock.now)
    processed_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=300, blank=True, default="")

    class Meta:
        db_table = "webhook_event"
        ordering = ["-received_at"]
        indexes = [
            models.Index(
                fields=["received_at"],
                condition=Q(processed_at__isnull=True),
                name="webhook_event_unprocessed",
            )
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.event_id}"
