"""Files, batches and a batch's lines. State and constraints only; verbs live beside."""

from django.db import models
from django.db.models import F, Q

from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from tenants.models import ApiKey, Project
from tenants.scoping import TenantModel


class StoredFile(TenantModel):
    """A file of a project. There is a row before and as long as there is content."""

    class Purpose(models.TextChoices):
        BATCH = "batch", "Input of a batch"
        BATCH_OUTPUT = "batch_output", "Result of a batch"

    class State(models.TextChoices):
        ARRIVING = "arriving", "Being written"
        READY = "ready", "There"
        LEAVING = "leaving", "Deleted; the content goes next"

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="+")
    purpose = models.CharField(max_length=16, choices=Purpose)
    state = models.CharField(max_length=16, choices=State)
    filename = models.CharField(max_length=255)
    size_bytes = models.BigIntegerField()
    created_at = models.DateTimeField(default=clock.now)
    expires_at = models.DateTimeField()

    class Meta:
        db_table = "batch_file"
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["tenant", "project", "-id"], name="batch_file_of_project"),
            models.Index(fields=["expires_at"], name="batch_file_expiry"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(purpose__in=["batch", "batch_output"]), name="batch_file_purpose_known"
            ),
            models.CheckConstraint(
                condition=Q(state__in=["arriving", "ready", "leaving"]),
                name="batch_file_state_known",
            ),
            models.CheckConstraint(condition=Q(size_bytes__gte=0), name="batch_file_size"),
        ]

    def __str__(self) -> str:
        return f"file-{self.id.hex}"


class Batch(TenantModel):
    """One batch. `expiring` is ours: shown as `finalizing` until what is in flight has ended.

    The ids of its result files are fixed when it starts, so that writing them again after a crash
    replaces them. They are shown when the batch has ended. Token counts are as the answers tell.
    """

    class Status(models.TextChoices):
        VALIDATING = "validating", "Validating"
        FAILED = "failed", "Failed"
        IN_PROGRESS = "in_progress", "In progress"
        FINALIZING = "finalizing", "Finalizing"
        COMPLETED = "completed", "Completed"
        EXPIRING = "expiring", "Expiring"
        EXPIRED = "expired", "Expired"
        CANCELLING = "cancelling", "Cancelling"
        CANCELLED = "cancelled", "Cancelled"

    OPEN = ("validating", "in_progress", "finalizing", "expiring", "cancelling")

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="+")
    key = models.ForeignKey(ApiKey, on_delete=models.PROTECT, related_name="+")
    status = models.CharField(max_length=16, choices=Status, default=Status.VALIDATING)
    endpoint = models.CharField(max_length=40)
    input_file_id = models.UUIDField()
    output_file_id = models.UUIDField(default=uuid7)
    error_file_id = models.UUIDField(default=uuid7)
    output_life_s = models.PositiveIntegerField()
    metadata = models.JSONField(null=True, blank=True)
    model = models.CharField(max_length=80, blank=True, default="")
    errors = models.JSONField(null=True, blank=True)
    total = models.PositiveIntegerField(default=0)
    completed = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    tokens_in = models.BigIntegerField(default=0)
    tokens_out = models.BigIntegerField(default=0)
    has_output = models.BooleanField(default=False)
    has_errors = models.BooleanField(default=False)
    created_at = models.DateTimeField(default=clock.now)
    expires_at = models.DateTimeField()
    worked_at = models.DateTimeField(default=clock.now)
    in_progress_at = models.DateTimeField(null=True, blank=True)
    finalizing_at = models.DateTimeField(null=True, blank=True)
    cancelling_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "batch"
        ordering = ["-id"]
        verbose_name_plural = "batches"
        indexes = [
            models.Index(fields=["tenant", "project", "-id"], name="batch_of_project"),
            models.Index(
                fields=["worked_at"],
                name="batch_open",
                condition=Q(
                    status__in=[
                        "validating", "in_progress", "finalizing", "expiring", "cancelling",
                    ]
                ),
            ),
        ]  # fmt: skip
        constraints = [
            models.CheckConstraint(
                condition=Q(
                    status__in=[
                        "validating", "failed", "in_progress", "finalizing", "completed",
                        "expiring", "expired", "cancelling", "cancelled",
                    ]
                ),
                name="batch_status_known",
            ),
            models.CheckConstraint(
                condition=Q(total__gte=F("completed") + F("failed")), name="batch_counts_add_up"
            ),
            models.CheckConstraint(
                condition=Q(
                    status__in=["failed", "completed", "expired", "cancelled"],
                    ended_at__isnull=False,
                )
                | Q(
                    status__in=[
                        "validating", "in_progress", "finalizing", "expiring", "cancelling",
                    ],
                    ended_at__isnull=True,
                ),
                name="batch_ended_at_iff_ended",
            ),
            models.CheckConstraint(
                condition=Q(tokens_in__gte=0, tokens_out__gte=0), name="batch_tokens"
            ),
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"batch_{self.id.hex}"


class BatchLine(TenantModel):
    """One request of a batch that has not ended; gone once the result files are written.

    Attributes:
        start_byte, size_bytes: where the line is in the input file.
        request_id: what the gateway knows the request by; the identity of its usage event. Another
            one only after an answer that leaves the line to be tried again.
        sent: the gateway may have it under this request id, and we do not know how it ended.
        lease_until: whoever runs the line holds it until then.
        http_status, body: the answer; without a status, `body` is the `error` of the result line.
    """

    class Status(models.TextChoices):
        WAITING = "waiting", "Waiting"
        COMPLETED = "completed", "Completed"
        FAILED = "failed", "Failed"

    # The composite key to the batch is in the migration; a second one would be checked for nothing.
    batch = models.ForeignKey(
        Batch, on_delete=models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    line_no = models.PositiveIntegerField()
    custom_id = models.CharField(max_length=512)
    start_byte = models.BigIntegerField()
    size_bytes = models.PositiveIntegerField()
    request_id = models.UUIDField()
    status = models.CharField(max_length=16, choices=Status, default=Status.WAITING)
    sent = models.BooleanField(default=False)
    attempts = models.PositiveIntegerField(default=0)
    not_before = models.DateTimeField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    http_status = models.PositiveSmallIntegerField(null=True, blank=True)
    body = models.BinaryField(null=True, blank=True)

    class Meta:
        db_table = "batch_line"
        ordering = ["line_no"]
        indexes = [
            models.Index(
                fields=["batch", "line_no"],
                name="batch_line_waiting",
                condition=Q(status="waiting"),
            )
        ]
        constraints = [
            models.UniqueConstraint(fields=["batch", "line_no"], name="batch_line_once"),
            models.UniqueConstraint(
                fields=["batch", "custom_id"], name="batch_line_custom_id_once"
            ),
            models.UniqueConstraint(fields=["request_id"], name="batch_line_request_once"),
            models.CheckConstraint(
                condition=Q(status__in=["waiting", "completed", "failed"]),
                name="batch_line_status_known",
            ),
            models.CheckConstraint(
                condition=Q(status="waiting", body__isnull=True, http_status__isnull=True)
                | Q(status="completed", body__isnull=False, http_status__isnull=False)
                | Q(status="failed", body__isnull=False),
                name="batch_line_result_iff_ended",
            ),
        ]

    def __str__(self) -> str:
        return f"line {self.line_no}"
