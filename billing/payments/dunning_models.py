"""What is done when an invoice is not paid: as a policy, and what was done of it.

Invariants held by PostgreSQL: an invoice has one case; of its case each step is taken once; a step
that is done stays as it is.
"""

from django.db import models
from django.db.models import Q

from meterplane.kernel import clock
from tenants.scoping import TenantModel


class DunningPolicy(models.Model):
    """The installation's policy: one row, or none where the shipped one holds."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    document = models.JSONField()
    changed_by = models.CharField(max_length=120)
    changed_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "dunning_policy"
        verbose_name_plural = "dunning policy"
        constraints = [models.CheckConstraint(condition=Q(id=1), name="dunning_policy_one")]

    def __str__(self) -> str:
        return "The installation's policy"


class DunningOverride(TenantModel):
    """An organisation's own policy, instead of the installation's."""

    document = models.JSONField()
    changed_by = models.CharField(max_length=120)
    changed_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "dunning_override"
        constraints = [models.UniqueConstraint(fields=["tenant"], name="dunning_override_one")]

    def __str__(self) -> str:
        return f"Policy of {self.tenant_id}"


class DunningCase(TenantModel):
    """An invoice that is overdue, since it could not be charged or its day has passed."""

    invoice = models.OneToOneField(
        "invoicing.Invoice", on_delete=models.PROTECT, related_name="dunning_case"
    )
    overdue_at = models.DateTimeField(default=clock.now)
    closed_at = models.DateTimeField(null=True, blank=True)
    looked_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "dunning_case"
        ordering = ["overdue_at"]
        indexes = [
            models.Index(
                fields=["looked_at"], condition=Q(closed_at__isnull=True), name="dunning_case_open"
            )
        ]

    def __str__(self) -> str:
        return f"case of {self.invoice_id}"


class DunningStep(TenantModel):
    """One act of a case. A mail is written here before it is sent, word for word.

    `step` names the act and its day, `charge:3`. A begun one is its worker's until `lease_until`.
    """

    class Kind(models.TextChoices):
        CHARGE = "charge", "Charge again"
        SUSPEND = "suspend", "Suspend"
        MAIL = "mail", "Mail"
        END = "end", "Mark uncollectible"

    class State(models.TextChoices):
        BEGUN = "begun", "Begun"
        DONE = "done", "Done"

    invoice = models.ForeignKey(
        "invoicing.Invoice", on_delete=models.PROTECT, related_name="dunning_steps"
    )
    step = models.CharField(max_length=16)
    kind = models.CharField(max_length=8, choices=Kind)
    due_at = models.DateTimeField()
    state = models.CharField(max_length=8, choices=State, default=State.BEGUN)
    lease_until = models.DateTimeField()
    tries = models.PositiveIntegerField(default=1)
    recipients = models.JSONField(default=list)
    subject = models.CharField(max_length=200, blank=True, default="")
    body = models.TextField(blank=True, default="")
    note = models.TextField(blank=True, default="")
    begun_at = models.DateTimeField(default=clock.now)
    done_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "dunning_step"
        ordering = ["begun_at", "id"]
        constraints = [
            models.UniqueConstraint(fields=["invoice", "step"], name="dunning_step_once"),
            models.CheckConstraint(
                condition=Q(kind__in=["charge", "suspend", "mail", "end"]),
                name="dunning_step_kind_known",
            ),
            models.CheckConstraint(
                condition=Q(state="begun", done_at__isnull=True)
                | Q(state="done", done_at__isnull=False),
                name="dunning_step_done_at",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.step} {self.state}"


class DunningSuspension(TenantModel):
    """That an organisation's standing was taken by dunning, and the reason that it gave.

    Payment lifts it as long as the standing still has this reason: whoever gives another one since
    has decided anew.
    """

    reason = models.CharField(max_length=200)
    imposed_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "dunning_suspension"
        constraints = [models.UniqueConstraint(fields=["tenant"], name="dunning_suspension_one")]

    def __str__(self) -> str:
        return self.reason
