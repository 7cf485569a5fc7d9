"""What each night's audit found, as rows. Written by `audit_night` and by nobody else."""

from django.db import models

from meterplane.kernel import clock


class AuditRun(models.Model):
    """The audit of one night: how far it is, and what is wrong.

    `after` is the organisation that was audited last, in the order of ids; null before the first.
    `findings` are `{"organisation", "check", "subject", "what"}`, the first of `wrong` many.
    """

    on = models.DateField(primary_key=True)
    started_at = models.DateTimeField(default=clock.now)
    finished_at = models.DateTimeField(null=True)
    after = models.UUIDField(null=True)
    organisations = models.BigIntegerField(default=0)
    entries = models.BigIntegerField(default=0)
    wrong = models.BigIntegerField(default=0)
    findings = models.JSONField(default=list)

    class Meta:
        db_table = "ledger_audit"
        ordering = ["-on"]
        verbose_name = "ledger audit"
        constraints = [
            models.CheckConstraint(
                condition=models.Q(wrong__gte=0, entries__gte=0, organisations__gte=0),
                name="ledger_audit_counts_up",
            ),
        ]

    def __str__(self) -> str:
        return f"the night of {self.on}"

    @property
    def holds(self) -> bool | None:
        """Whether nothing is wrong; None while that is not known."""
        if self.wrong:
            return False
        return True if self.finished_at is not None else None
