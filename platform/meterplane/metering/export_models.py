"""Exports, and where they are sent. The tables are made in SQL; constraints are there.

`Export` and its parts are tenants' rows, or, without a tenant, an operator's. The other tables are
an operator's: only the system's door reaches them. The database itself takes away what goes with a
row: whoever removes an export may not look at deliveries.
"""

from typing import Any

from django.db import models

from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from tenants.scoping import TenantManager


class Export(models.Model):
    """One file of usage that somebody asked for.

    Attributes:
        query: what is in it, as `exports.query.ExportQuery` says it.
        ingested_until: usage that was taken in later is not in it, however long it takes to write.
        place: where the next part begins; null before the first.
        days_done, days_total: how far it is.
        sums: what the rows cost, nano by currency.
        sha256: of the whole file, once it is there.
    """

    class State(models.TextChoices):
        QUEUED = "queued", "Queued"
        RUNNING = "running", "Running"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    OPEN = ("queued", "running")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(
        "tenants.Organisation", on_delete=models.PROTECT, related_name="+", null=True
    )
    kind = models.TextField()
    format = models.TextField()
    query = models.JSONField()
    state = models.TextField(choices=State, default=State.QUEUED)
    ingested_until = models.DateTimeField()
    place = models.JSONField(null=True)
    days_total = models.IntegerField()
    days_done = models.IntegerField(default=0)
    rows = models.BigIntegerField(default=0)
    bytes = models.BigIntegerField(default=0)
    parts = models.IntegerField(default=0)
    sums = models.JSONField(default=dict)
    sha256 = models.TextField(default="")
    error = models.TextField(default="")
    requested_by = models.TextField()
    created_at = models.DateTimeField(default=clock.now)
    worked_at = models.DateTimeField(default=clock.now)
    finished_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)

    objects: TenantManager[Any] = TenantManager()

    class Meta:
        managed = False
        db_table = "export"

    def __str__(self) -> str:
        return f"{self.kind}.{self.format} {self.id}"


class ExportPart(models.Model):
    """A stretch of an export that is written and will not be written again."""

    pk = models.CompositePrimaryKey("export_id", "number")
    export = models.ForeignKey(Export, on_delete=models.DO_NOTHING, related_name="+")
    number = models.IntegerField()
    tenant = models.ForeignKey(
        "tenants.Organisation", on_delete=models.PROTECT, related_name="+", null=True
    )
    rows = models.BigIntegerField()
    bytes = models.BigIntegerField()
    sha256 = models.TextField()

    objects: TenantManager[Any] = TenantManager()

    class Meta:
        managed = False
        db_table = "export_part"

    def __str__(self) -> str:
        return f"part {self.number} of {self.export_id}"


class ExportDestination(models.Model):
    """A bucket of an S3-compatible store.

    Its secret key is sealed (`exports.sealing`), or read from the worker's environment variable
    `secret_env`; one of the two is empty.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.TextField(unique=True)
    endpoint = models.TextField(blank=True)
    region = models.TextField()
    bucket = models.TextField()
    prefix = models.TextField(blank=True)
    path_style = models.BooleanField(default=True)
    access_key_id = models.TextField()
    secret_sealed = models.TextField(default="", blank=True)
    secret_env = models.TextField(default="", blank=True)
    created_at = models.DateTimeField(default=clock.now)

    class Meta:
        managed = False
        db_table = "export_destination"

    def __str__(self) -> str:
        return self.name


class ExportSchedule(models.Model):
    """What is sent to a destination, and how often. `next_period` is the first one not begun."""

    class Every(models.TextChoices):
        HOURLY = "hourly", "Hourly"
        DAILY = "daily", "Daily"
        MONTHLY = "monthly", "Monthly"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.TextField()
    destination = models.ForeignKey(
        ExportDestination, on_delete=models.PROTECT, related_name="schedules"
    )
    tenant = models.ForeignKey(
        "tenants.Organisation", on_delete=models.PROTECT, related_name="+", null=True, blank=True
    )
    kind = models.TextField()
    format = models.TextField()
    every = models.TextField(choices=Every)
    filters = models.JSONField(default=dict, blank=True)
    is_active = models.BooleanField(default=True)
    next_period = models.DateTimeField()
    created_at = models.DateTimeField(default=clock.now)

    class Meta:
        managed = False
        db_table = "export_schedule"

    def __str__(self) -> str:
        return self.name


class ExportDelivery(models.Model):
    """One period of a schedule.

    Attributes:
        revision: how often its object was replaced because usage came late; 1 is the first.
        events_seen: events of the period there were before the export began; -1 for none yet.
        error: why the last attempt failed; empty once one succeeds.
    """

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting"
        EXPORTING = "exporting", "Exporting"
        SENDING = "sending", "Sending"
        DELIVERED = "delivered", "Delivered"

    pk = models.CompositePrimaryKey("schedule_id", "period_start")
    schedule = models.ForeignKey(
        ExportSchedule, on_delete=models.DO_NOTHING, related_name="deliveries"
    )
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()
    state = models.TextField(choices=State, default=State.WAITING)
    revision = models.IntegerField(default=0)
    events_seen = models.BigIntegerField(default=-1)
    export = models.ForeignKey(Export, on_delete=models.DO_NOTHING, related_name="+", null=True)
    rows = models.BigIntegerField(default=0)
    bytes = models.BigIntegerField(default=0)
    sha256 = models.TextField(default="")
    object_key = models.TextField(default="")
    error = models.TextField(default="")
    attempts = models.IntegerField(default=0)
    try_at = models.DateTimeField(default=clock.now)
    delivered_at = models.DateTimeField(null=True)

    class Meta:
        managed = False
        db_table = "export_delivery"

    def __str__(self) -> str:
        return f"{self.schedule_id} {self.period_start:%Y-%m-%d %H:%M}"
