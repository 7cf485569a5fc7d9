"""What was used. The tables are made in SQL (partitions, roll-ups); these models read them.

`usage_event` is written by `ingest.py` and by nobody else, and never changed.
"""

from typing import Any

from django.db import models

from meterplane.metering.export_models import (
    Export,
    ExportDelivery,
    ExportDestination,
    ExportPart,
    ExportSchedule,
)
from meterplane.metering.reconcile.records import CanaryRun as CanaryRun
from meterplane.metering.reconcile.records import Reconciliation as Reconciliation
from tenants.scoping import TenantManager

__all__ = ["Export", "ExportDelivery", "ExportDestination", "ExportPart", "ExportSchedule"]


class UsageEvent(models.Model):
    """One settled request. Columns as in `contracts.usage.Settle`."""

    pk = models.CompositePrimaryKey("tenant_id", "event_day", "request_id")
    tenant = models.ForeignKey("tenants.Organisation", on_delete=models.PROTECT, related_name="+")
    event_day = models.DateField()
    request_id = models.UUIDField()
    event_at = models.DateTimeField()
    project_id = models.UUIDField()
    key_id = models.UUIDField()
    model = models.TextField()
    surface = models.TextField()
    stream = models.BooleanField()
    status = models.TextField()
    http_status = models.IntegerField()
    tokens_in = models.BigIntegerField()
    tokens_out = models.BigIntegerField()
    requests = models.IntegerField()
    rows = models.BigIntegerField()
    bytes_in = models.BigIntegerField()
    bytes_out = models.BigIntegerField()
    provenance = models.TextField()
    currency = models.TextField()
    price_version_id = models.UUIDField()
    cost_nano = models.BigIntegerField()
    reserved_nano = models.BigIntegerField()
    settled_at = models.DateTimeField()
    first_byte_ms = models.BigIntegerField()
    total_ms = models.BigIntegerField()
    server = models.TextField()
    service_tier = models.TextField()
    requested_model = models.TextField()
    deployment = models.TextField()
    tensor_bytes_in = models.BigIntegerField()
    tensor_bytes_out = models.BigIntegerField()
    queue_us = models.BigIntegerField()
    compute_us = models.BigIntegerField()
    retries = models.IntegerField()
    trace_id = models.TextField()
    epoch = models.TextField()
    admitted_at = models.DateTimeField(null=True)
    tokens_out_stop = models.BigIntegerField()
    tags = models.JSONField()
    priority = models.TextField()
    region = models.TextField()
    gpu_type = models.TextField()
    segment_id = models.UUIDField()
    ingested_at = models.DateTimeField()

    objects: TenantManager[Any] = TenantManager()

    class Meta:
        managed = False
        db_table = "usage_event"

    def __str__(self) -> str:
        return f"{self.request_id} {self.model} {self.status}"


_SUMMED_BY = (
    "project_id",
    "key_id",
    "model",
    "surface",
    "status",
    "price_version_id",
    "currency",
    "service_tier",
    "deployment",
    "priority",
    "region",
    "gpu_type",
)


class _Billed(models.Model):
    """Sums of events by what bills tell apart."""

    tenant = models.ForeignKey("tenants.Organisation", on_delete=models.PROTECT, related_name="+")
    model = models.TextField()
    price_version_id = models.UUIDField()
    currency = models.TextField()
    service_tier = models.TextField()
    priority = models.TextField()
    region = models.TextField()
    gpu_type = models.TextField()
    events = models.BigIntegerField()
    requests = models.BigIntegerField()
    tokens_in = models.BigIntegerField()
    tokens_out = models.BigIntegerField()
    cost_nano = models.BigIntegerField()

    objects: TenantManager[Any] = TenantManager()

    class Meta:
        abstract = True


class _Sums(_Billed):
    """Sums of events by everything usage is asked by."""

    project_id = models.UUIDField()
    key_id = models.UUIDField()
    surface = models.TextField()
    status = models.TextField()
    deployment = models.TextField()
    rows = models.BigIntegerField()
    bytes_in = models.BigIntegerField()
    bytes_out = models.BigIntegerField()
    total_ms_sum = models.BigIntegerField()
    tensor_bytes_in = models.BigIntegerField()
    tensor_bytes_out = models.BigIntegerField()
    compute_us_sum = models.BigIntegerField()
    first_byte_ms_sum = models.BigIntegerField()

    class Meta:
        abstract = True


class UsageHour(_Sums):
    """Sums of the events of one hour."""

    pk = models.CompositePrimaryKey("tenant_id", "hour", *_SUMMED_BY)
    hour = models.DateTimeField()

    class Meta:
        managed = False
        db_table = "usage_hour"

    def __str__(self) -> str:
        return f"{self.hour} {self.model} {self.status}"


class UsageDay(_Sums):
    """Sums of the events of one UTC day."""

    pk = models.CompositePrimaryKey("tenant_id", "day", *_SUMMED_BY)
    day = models.DateField()

    class Meta:
        managed = False
        db_table = "usage_day"

    def __str__(self) -> str:
        return f"{self.day} {self.model} {self.status}"


class UsageMonth(_Billed):
    """Sums of the events of one UTC month by what bills tell apart. PostgreSQL keeps them: each
    write of `usage_day` changes its months in the same statement. A row of no event may stay."""

    pk = models.CompositePrimaryKey(
        "tenant_id",
        "month",
        "model",
        "service_tier",
        "price_version_id",
        "currency",
        "priority",
        "region",
        "gpu_type",
    )
    month = models.DateField(help_text="its first day")

    class Meta:
        managed = False
        db_table = "usage_month"

    def __str__(self) -> str:
        return f"{self.month:%Y-%m} {self.model}"


class UsageTagHour(models.Model):
    """Sums of the events of one hour that carry a tag. One with three tags is in three rows."""

    pk = models.CompositePrimaryKey(
        "tenant_id",
        "tag",
        "hour",
        "value",
        "project_id",
        "key_id",
        "model",
        "status",
        "currency",
    )
    tenant = models.ForeignKey("tenants.Organisation", on_delete=models.PROTECT, related_name="+")
    hour = models.DateTimeField()
    tag = models.TextField()
    value = models.TextField()
    project_id = models.UUIDField()
    key_id = models.UUIDField()
    model = models.TextField()
    status = models.TextField()
    currency = models.TextField()
    events = models.BigIntegerField()
    requests = models.BigIntegerField()
    tokens_in = models.BigIntegerField()
    tokens_out = models.BigIntegerField()
    cost_nano = models.BigIntegerField()
    total_ms_sum = models.BigIntegerField()

    objects: TenantManager[Any] = TenantManager()

    class Meta:
        managed = False
        db_table = "usage_tag_hour"

    def __str__(self) -> str:
        return f"{self.hour} {self.tag}={self.value}"


class UsageSpend(models.Model):
    """What the requests admitted on one UTC day in one epoch of the admission Redis cost.

    `model` is the one that was asked for. Days add up to every calendar window of a budget.
    """

    pk = models.CompositePrimaryKey("tenant_id", "epoch", "day", "project_id", "key_id", "model")
    tenant = models.ForeignKey("tenants.Organisation", on_delete=models.PROTECT, related_name="+")
    epoch = models.TextField()
    day = models.DateField()
    project_id = models.UUIDField()
    key_id = models.UUIDField()
    model = models.TextField()
    cost_nano = models.BigIntegerField()

    objects: TenantManager[Any] = TenantManager()

    class Meta:
        managed = False
        db_table = "usage_spend"

    def __str__(self) -> str:
        return f"{self.day} {self.model} in {self.epoch}"


class UsageRevision(models.Model):
    """How often usage of an organisation was added. Read it before the usage: what is read then is
    at least what that revision had.

    `on_time` is how often none of it was from before `settled_until` (`arrivals`), `added_from`
    the first instant of what was added last.
    """

    tenant = models.OneToOneField(
        "tenants.Organisation", primary_key=True, on_delete=models.PROTECT, related_name="+"
    )
    revision = models.BigIntegerField()
    on_time = models.BigIntegerField(default=0)
    settled_until = models.DateTimeField(null=True)
    added_from = models.DateTimeField(null=True)

    objects: TenantManager[Any] = TenantManager()

    class Meta:
        managed = False
        db_table = "usage_revision"

    def __str__(self) -> str:
        return f"{self.tenant_id}: {self.revision}"


class JournalWatermark(models.Model):
    """Up to when everything admitted beside one journal root is settled and taken in.

    Both instants are the database's. See `watermark.py`.
    """

    root = models.UUIDField(primary_key=True)
    host = models.TextField()
    drained_until = models.DateTimeField()
    seen_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = "journal_watermark"

    def __str__(self) -> str:
        return f"{self.host} {self.root}: {self.drained_until}"


class JournalSegment(models.Model):
    """A journal segment that was taken in. The shipper deletes a file only once it finds this."""

    segment_id = models.UUIDField(primary_key=True)
    gateway = models.TextField()
    sha256 = models.TextField(help_text="of its bytes; empty if taken in before this was kept")
    events = models.IntegerField()
    inserted = models.IntegerField()
    ingested_at = models.DateTimeField()
    manifest = models.BinaryField(null=True, help_text="what its shipper read in it by itself")

    class Meta:
        managed = False
        db_table = "journal_segment"

    def __str__(self) -> str:
        return f"{self.segment_id} of {self.gateway}"


class UsageQuarantine(models.Model):
    """Journal content that could not become usage events, kept for a person to look at."""

    id = models.UUIDField(primary_key=True)
    segment_id = models.UUIDField()
    reason = models.TextField()
    payload = models.BinaryField()
    quarantined_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = "usage_quarantine"

    def __str__(self) -> str:
        return f"{self.segment_id}: {self.reason}"


class UsageArchive(models.Model):
    """A day whose events went, or go, to a file. Nothing more is taken in for it."""

    day = models.DateField(primary_key=True)
    closed_at = models.DateTimeField()
    file_name = models.TextField(null=True)
    sha256 = models.TextField(null=True, help_text="of the file")
    events = models.BigIntegerField(null=True)
    cost_nano = models.JSONField(null=True, help_text="by currency")
    checksum = models.DecimalField(
        null=True, max_digits=40, decimal_places=0, help_text="of ids and costs, in any order"
    )
    recorded_at = models.DateTimeField(null=True)
    dropped_at = models.DateTimeField(null=True)
    restored_at = models.DateTimeField(null=True)

    class Meta:
        managed = False
        db_table = "usage_archive"

    def __str__(self) -> str:
        return f"{self.day}: {self.file_name}"
