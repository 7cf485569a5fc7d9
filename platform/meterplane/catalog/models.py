"""One row per model on offer. Global: the same catalog for every organisation.

What a row may say is checked in `check.py` before it is written; PostgreSQL holds what needs no
other row to be told.
"""

from typing import get_args

from django.db import models
from django.db.models import F, Q

from meterplane.contracts import policy
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7

ADAPTERS = list(get_args(policy.Adapter))


class Model(models.Model):
    """A model on offer. `name` is what callers write, `upstream` what its server calls it.

    The fields from `targets` on mean what they mean in `contracts.serving.ModelServing`.
    """

    class Adapter(models.TextChoices):
        VLLM = "vllm", "Triton: vLLM backend"
        TENSORRTLLM = "tensorrtllm", "Triton: TensorRT-LLM, classic ensemble"
        LLMAPI = "llmapi", "Triton: TensorRT-LLM, LLM API"
        OPENAI = "openai", "OpenAI-compatible server (vLLM, NIM, SGLang, Triton's frontend)"
        EMBEDDING = "embedding", "Triton: text embedding"
        TENSOR = "tensor", "Triton: any tensors"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=80, unique=True)
    display_name = models.CharField(max_length=120)
    upstream = models.CharField(max_length=200)
    adapter = models.CharField(max_length=16, choices=Adapter)
    context_tokens_max = models.PositiveIntegerField()
    output_tokens_max = models.PositiveIntegerField()
    output_tokens_default = models.PositiveIntegerField()
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
    created_at = models.DateTimeField(default=clock.now)

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
        ]

    def __str__(self) -> str:
        return self.name
