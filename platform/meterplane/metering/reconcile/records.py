"""Verdicts, as rows. Written by `verdict.py` and by nobody else, all of an hour at once."""

from django.contrib.postgres.fields import ArrayField
from django.db import models

from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7


class Reconciliation(models.Model):
    """What four witnesses say of the requests that came in within one hour.

    `server` is a gateway's name of what served, or of the Triton that has that name; empty where
    none answered. In the row whose server is `*` all of them are summed: roll-ups know no server.
    `journal` and `events` are numbers of requests by their ids; `rolled_up` of `usage_hour`. The
    `triton_*` are of the time between two looks at its counters, around the hour: the least and the
    most that metering accounts for, and what it counted. Null: not compared.
    """

    class Verdict(models.TextChoices):
        PASS = "pass", "Pass"
        FAIL = "fail", "Fail"
        OPEN = "open", "Open"

    pk = models.CompositePrimaryKey("hour", "model", "server")
    hour = models.DateTimeField()
    model = models.TextField()
    server = models.TextField()
    journal = models.BigIntegerField()
    events = models.BigIntegerField()
    rolled_up = models.BigIntegerField(null=True)
    triton_low = models.BigIntegerField(null=True)
    triton_high = models.BigIntegerField(null=True)
    triton = models.BigIntegerField(null=True)
    missing = ArrayField(models.UUIDField())
    missing_count = models.BigIntegerField()
    extra = ArrayField(models.UUIDField())
    extra_count = models.BigIntegerField()
    verdict = models.TextField(choices=Verdict)
    reason = models.TextField()
    at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = "reconciliation"

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H:%M} {self.model} {self.server}: {self.verdict}"


class CanaryRun(models.Model):
    """One round of known requests, and what the chain made of them.

    `steps` are `{"name", "passed", "said"}` in their order; `visible_after_ms` is how long the last
    of its events took from its answer until it could be read.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    started_at = models.DateTimeField(default=clock.now)
    finished_at = models.DateTimeField(null=True)
    passed = models.BooleanField(null=True)
    steps = models.JSONField(default=list)
    visible_after_ms = models.BigIntegerField(null=True)

    class Meta:
        managed = False
        db_table = "canary_run"

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d %H:%M:%S}"
