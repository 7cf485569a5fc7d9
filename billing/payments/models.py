"""Where each conversation with the payment provider stands.

A run per invoice, a row per step. A step's parameters, digest and idempotency key are frozen before
it is sent for the first time (a trigger holds that): a key that is sent again always carries the
same bytes. The inbox of provider events belongs to no tenant and is read by the system role only.

Cards and credit that is paid ahead are in `money_in_models`, what is done about unpaid invoices in
`dunning_models`, how they are to be paid and payments by hand in `terms_models`.
"""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from billing.payments.dispute_models import Dispute as Dispute
from billing.payments.dispute_models import DisputeMovement as DisputeMovement
from billing.payments.dunning_models import DunningCase as DunningCase
from billing.payments.dunning_models import DunningOverride as DunningOverride
from billing.payments.dunning_models import DunningPolicy as DunningPolicy
from billing.payments.dunning_models import DunningStep as DunningStep
from billing.payments.dunning_models import DunningSuspension as DunningSuspension
from billing.payments.money_in_models import AutoReload, CardSetup, TopUp
from billing.payments.records import EventWatermark as EventWatermark
from billing.payments.records import PaymentFinding as PaymentFinding
from billing.payments.records import ReconciledDay as ReconciledDay
from billing.payments.refund_models import Refund as Refund
from billing.payments.terms_models import CollectionTerms as CollectionTerms
from billing.payments.terms_models import InvoiceTerms as InvoiceTerms
from billing.payments.terms_models import Method as Method
from billing.payments.terms_models import RecordedPayment as RecordedPayment
from meterplane.kernel import clock
from tenants.scoping import TenantModel

__all__ = [
    "AutoReload",
    "BillingAccount",
    "CardSetup",
    "PaymentRun",
    "PaymentStep",
    "TopUp",
    "WebhookEvent",
]


class BillingAccount(TenantModel):
    """A tenant's customer object at the provider."""

    provider = models.CharField(max_length=16)
    customer_id = models.CharField(max_length=64)
    # The card that is charged, as last read; which of two was kept last is told by `kept_at`.
    default_payment_method = models.CharField(max_length=64, blank=True, default="")
    card_brand = models.CharField(max_length=40, blank=True, default="", db_default="")
    card_last4 = models.CharField(max_length=4, blank=True, default="", db_default="")
    card_kept_at = models.DateTimeField(null=True, blank=True)
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


class CarriedInvoice(TenantModel):
    """An invoice too small to be charged by itself, and the run that takes it along, once one does.

    `amount_minor` is what was due when that run was made.
    """

    invoice = models.OneToOneField(
        "invoicing.Invoice", on_delete=models.PROTECT, related_name="carried"
    )
    run = models.ForeignKey(
        PaymentRun, null=True, blank=True, on_delete=models.PROTECT, related_name="carries"
    )
    amount_minor = models.BigIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "carried_invoice"
        constraints = [
            models.CheckConstraint(
                condition=Q(run__isnull=True, amount_minor__isnull=True)
                | Q(run__isnull=False, amount_minor__gt=0),
                name="carried_with_an_amount",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.invoice_id} with {self.run_id or 'the next'}"


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
    result_id = models.CharField(max_length=128, blank=True, default="")
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
    """One event of the provider's: a hint to re-read an object, stored once by its id.

    It was delivered, or found in the provider's own list when no delivery came. `failures` counts
    tries that came to nothing, the last one's reason beside it; the next is at `try_at`.
    """

    class Origin(models.TextChoices):
        DELIVERED = "delivered", "Delivered"
        LISTED = "listed", "Found in the list"

    event_id = models.CharField(primary_key=True, max_length=100)
    type = models.CharField(max_length=100)
    payload = models.JSONField()
    origin = models.CharField(
        max_length=16, choices=Origin, default=Origin.DELIVERED, db_default=Origin.DELIVERED
    )
    received_at = models.DateTimeField(default=clock.now)
    processed_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=300, blank=True, default="")
    failures = models.PositiveIntegerField(default=0, db_default=0)
    failure = models.CharField(max_length=300, blank=True, default="", db_default="")
    try_at = models.DateTimeField(default=clock.now, db_default=Now())

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
