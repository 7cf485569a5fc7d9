"""One row per model on offer. Global: the same catalog for every organisation."""

from django.db import models
from django.db.models import F, Q

from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7


class Model(models.Model):
    """A model on offer. `name` is what callers write, `upstream` what Triton calls it."""

    class Adapter(models.TextChoices):
        VLLM = "vllm", "Text generation (vLLM tensor contract)"
        EMBEDDING = "embedding", "Text embedding"
        TENSOR = "tensor", "Any tensors"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=80, unique=True)
    display_name = models.CharField(max_length=120)
    upstream = models.CharField(max_length=80)
    adapter = models.CharField(max_length=16, choices=Adapter)
    context_tokens_max = models.PositiveIntegerField()
    output_tokens_max = models.PositiveIntegerField()
    output_tokens_default = models.PositiveIntegerField()
    description = models.TextField(blank=True, default="")
    is_demo = models.BooleanField(default=False)
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "catalog_model"
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(name__regex=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"), name="model_name_safe"
            ),
            models.CheckConstraint(
                condition=Q(upstream__regex=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"),
                name="model_upstream_safe",
            ),
            models.CheckConstraint(
                condition=Q(adapter__in=["vllm", "embedding", "tensor"]), name="model_adapter_known"
            ),
            models.CheckConstraint(
                condition=Q(output_tokens_default__lte=F("output_tokens_max")),
                name="model_output_default_within_max",
            ),
        ]

    def __str__(self) -> str:
        return self.name
