"""One row per model on offer. Global: the same catalog for every organisation.

What a row may say is checked in `check.py` before it is written; PostgreSQL holds what needs no
other row to be told.
"""

from decimal import Decimal
from typing import get_args

from django.db import models
from django.db.models import F, Q

from meterplane.contracts import policy
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from meterplane.kernel.money import divide_half_away

ADAPTERS = list(get_args(policy.Adapter))


class Model(models.Model):
    """A model on offer. `name` is what callers write, `upstream` what its server calls it.

    The fields from `targets` on mean what they mean in `contracts.serving.ModelServing`. `reserve`
    is how much output is held, and made at most, for a request that names no bound: with `history`
    it is `output_tokens_learned`, where there is one. That and what it was learned from is written
    by `policy.learn` and nobody else.
    """

    class Adapter(models.TextChoices):
        VLLM = "vllm", "Triton: vLLM backend"
        TENSORRTLLM = "tensorrtllm", "Triton: TensorRT-LLM, classic ensemble"
        LLMAPI = "llmapi", "Triton: TensorRT-LLM, LLM API"
        OPENAI = "openai", "OpenAI-compatible server (vLLM, NIM, SGLang, Triton's frontend)"
        EMBEDDING = "embedding", "Triton: text embedding"
        TENSOR = "tensor", "Triton: any tensors"

    class Reserve(models.TextChoices):
        BOUND = "bound", "The output unless asked"
        HISTORY = "history", "What 99 % of such answers needed"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=80, unique=True)
    display_name = models.CharField(max_length=120)
    upstream = models.CharField(max_length=200)
    adapter = models.CharField(max_length=16, choices=Adapter)
    context_tokens_max = models.PositiveIntegerField()
    output_tokens_max = models.PositiveIntegerField()
    output_tokens_default = models.PositiveIntegerField()
    reserve = models.CharField(max_length=8, choices=Reserve, default=Reserve.BOUND)
    description = models.TextField(blank=True, default="")
    is_demo = models.BooleanField(default=False)
    is_active = models.BooleanField(default=True)
    targets = models.JSONField(blank=True, default=list)
    fallbacks = models.JSONField(blank=True, default=list)
    chat_template = models.TextField(blank=True, default="")
    tokenizer = models.CharField(max_length=200, blank=True, default="")
    parameters = models.JSONField(blank=True, default=list)
    inputs = models.JSONField(blank=True, default=list)
    outputs = models.JSONField(blank=True, default=list)
    bill_errors = models.BooleanField(default=False)
    continuous_usage = models.BooleanField(default=False)
    secret_env = models.CharField(max_length=64, blank=True, default="")
    first_byte_timeout_s = models.FloatField(default=0)
    idle_timeout_s = models.FloatField(default=0)
    duration_s_max = models.FloatField(default=0)
    in_flight_max = models.PositiveIntegerField(default=0)
    queue_max = models.PositiveIntegerField(default=512)
    queue_s_max = models.FloatField(default=10)
    priority_levels = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(default=clock.now)
    output_tokens_learned = models.PositiveIntegerField(null=True, editable=False)
    answers_learned_from = models.PositiveBigIntegerField(default=0, editable=False)
    learned_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        db_table = "catalog_model"
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(name__regex=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"), name="model_name_safe"
            ),
            # A slash would name another path at Triton; an OpenAI-compatible server reads the
            # name from the body, and calls its models `meta-llama/Llama-3.1-8B-Instruct`.
            models.CheckConstraint(
                condition=Q(upstream__regex=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
                | Q(
                    adapter="openai",
                    upstream__regex=r"^[A-Za-z0-9][A-Za-z0-9._:-]*(/[A-Za-z0-9][A-Za-z0-9._:-]*)*$",
                ),
                name="model_upstream_safe",
            ),
            models.CheckConstraint(condition=Q(adapter__in=ADAPTERS), name="model_adapter_known"),
            models.CheckConstraint(
                condition=Q(output_tokens_default__lte=F("output_tokens_max")),
                name="model_output_default_within_max",
            ),
            models.CheckConstraint(
                condition=Q(reserve__in=["bound", "history"]), name="model_reserve_known"
            ),
            models.CheckConstraint(
                condition=Q(("secret_env", ""))
                | Q(("secret_env__regex", r"^[A-Z][A-Z0-9_]{1,63}$")),
                name="model_secret_env_is_a_variable",
            ),
            models.CheckConstraint(
                condition=Q(
                    first_byte_timeout_s__gte=0, idle_timeout_s__gte=0, duration_s_max__gte=0
                ),
                name="model_timeouts_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(queue_s_max__gte=0, queue_s_max__lte=30), name="model_queue_is_short"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class OverHold(models.Model):
    """What the requests of one model, over the days up to `until`, held and what they cost.

    In one currency, in nano; failed requests aside. The percentiles are of what each request held
    above its cost. Written by `policy.learn`, all at once.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="over_holds")
    currency = models.CharField(max_length=3)
    since = models.DateTimeField()
    until = models.DateTimeField()
    requests = models.PositiveBigIntegerField()
    reserved_nano = models.BigIntegerField()
    cost_nano = models.BigIntegerField()
    p50_nano = models.BigIntegerField()
    p95_nano = models.BigIntegerField()

    class Meta:
        db_table = "catalog_over_hold"
        ordering = ["currency"]
        constraints = [
            models.UniqueConstraint(fields=["model", "currency"], name="over_hold_once"),
            models.CheckConstraint(
                condition=Q(
                    requests__gt=0, cost_nano__gte=0, reserved_nano__gte=F("cost_nano"),
                    p50_nano__gte=0, p95_nano__gte=F("p50_nano"), until__gt=F("since"),
                ),
                name="over_hold_adds_up",
            ),
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"{self.model.name} in {self.currency}"

    @property
    def mean_nano(self) -> int:
        """What a request held above its cost on average, rounded half away from zero."""
        return divide_half_away(self.reserved_nano - self.cost_nano, self.requests)

    @property
    def held_per_cost(self) -> Decimal | None:
        """What was held for one unit of what was spent, to two digits; None of what is free."""
        if self.cost_nano == 0:
            return None
        hundredths = divide_half_away(self.reserved_nano * 100, self.cost_nano)
        return Decimal(hundredths).scaleb(-2)


class Meter(models.Model):
    """What is counted. Its versions say how; the meters of the product itself are code
    (`meters.BUILT_IN`) and have no row."""

    slug = models.CharField(max_length=64, primary_key=True)
    created_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "meter"
        ordering = ["slug"]
        constraints = [
            models.CheckConstraint(
                condition=Q(slug__regex=r"^[a-z][a-z0-9_-]{0,63}$"), name="meter_slug_safe"
            ),
        ]

    def __str__(self) -> str:
        return self.slug


class MeterVersion(models.Model):
    """How a meter counts from `effective_from` until the next version begins. Never changed.

    `definition` is a `meters.MeterDefinition`, checked by `meters_check` before it is stored.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    meter = models.ForeignKey(Meter, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    effective_from = models.DateTimeField()
    definition = models.JSONField()
    created_at = models.DateTimeField(default=clock.now)
    created_by = models.CharField(max_length=120)

    class Meta:
        db_table = "meter_version"
        ordering = ["meter", "number"]
        constraints = [
            models.UniqueConstraint(fields=["meter", "number"], name="meter_version_once"),
            models.UniqueConstraint(
                fields=["meter", "effective_from"], name="meter_version_instant_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.meter_id} version {self.number}"
