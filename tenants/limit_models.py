"""What an organisation may use: plans with defaults, and what differs from them at one scope."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

from meterplane.contracts.policy import WINDOWS
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from tenants.scoping import TenantModel


class SetBy(models.TextChoices):
    """Whose word it is: the operator's bounds, the organisation's own only narrows."""

    OPERATOR = "operator", "Operator"
    ORGANISATION = "organisation", "Organisation"


def _kind_has_window() -> Q:
    allowed = Q()
    for kind, windows in WINDOWS.items():
        allowed |= Q(kind=kind, window__in=list(windows))
    return allowed


class Plan(models.Model):
    """A tier: the limits and restrictions of whoever is on it, where nothing else is said for them.

    `limits` is a list of objects {level, kind, window, amount, burst, mode, model}, checked by
    `tenants.plans`; a limit of level `key` holds for each key by itself. `restrictions` is an
    object {models, surfaces, ip_ranges, request_tokens_max} of what is restricted, and no more.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    slug = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=80)
    description = models.CharField(max_length=200, blank=True, default="")
    limits = models.JSONField(default=list)
    restrictions = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "plan"
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Limit(TenantModel):
    """One limit of one scope: the operator's, instead of the plan's, or the organisation's own.

    The operator's without an amount lifts the plan's. Units as in `contracts.policy.Limit`; the
    verbs of `tenants.limits` are the only writers.
    """

    set_by = models.CharField(max_length=16, choices=SetBy, default=SetBy.OPERATOR)
    level = models.CharField(max_length=16)
    scope_id = models.UUIDField()
    model = models.CharField(max_length=128, blank=True, default="")
    kind = models.CharField(max_length=16)
    window = models.CharField(max_length=16)
    amount = models.BigIntegerField(null=True, blank=True)
    burst = models.BigIntegerField(null=True, blank=True)
    mode = models.CharField(max_length=8, default="enforce")
    raised_to = models.BigIntegerField(null=True, blank=True)
    raised_until = models.DateTimeField(null=True, blank=True)
    changed_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "tenant_limit"
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "level", "scope_id", "model", "kind", "window", "set_by"],
                name="tenant_limit_once",
            ),
            models.CheckConstraint(
                condition=Q(set_by=SetBy.OPERATOR)
                | (
                    Q(set_by=SetBy.ORGANISATION, amount__isnull=False, burst__isnull=True)
                    & ~Q(window="prepaid")
                ),
                name="tenant_limit_own_narrows",
            ),
            models.CheckConstraint(
                condition=Q(amount__isnull=True) | Q(amount__gte=0), name="tenant_limit_amount"
            ),
            models.CheckConstraint(
                condition=Q(burst__isnull=True) | Q(burst__gte=1), name="tenant_limit_burst"
            ),
            models.CheckConstraint(
                condition=Q(level__in=["organisation", "project", "key"], model="")
                | (Q(level="key_model") & ~Q(model="")),
                name="tenant_limit_level",
            ),
            models.CheckConstraint(
                condition=Q(mode__in=["enforce", "notify"]), name="tenant_limit_mode"
            ),
            models.CheckConstraint(
                condition=Q(raised_to__isnull=True, raised_until__isnull=True)
                | Q(
                    raised_to__isnull=False,
                    raised_to__gte=0,
                    raised_until__isnull=False,
                    amount__isnull=False,
                ),  # an unknown alone would not be refused,
                name="tenant_limit_raise_ends",
            ),
            models.CheckConstraint(condition=_kind_has_window(), name="tenant_limit_kind_window"),
            models.CheckConstraint(
                condition=Q(burst__isnull=True)
                | Q(kind="requests", window__in=["second", "minute"]),
                name="tenant_limit_burst_of_rates",
            ),
            models.CheckConstraint(
                condition=~Q(level="organisation") | Q(scope_id=F("tenant")),
                name="tenant_limit_organisation_is_its_own",
            ),
            models.CheckConstraint(
                condition=~Q(window="prepaid") | Q(level="organisation"),
                name="tenant_limit_prepaid_of_organisation",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.level} {self.kind}/{self.window}: {self.amount}"


class Restriction(TenantModel):
    """What the keys of one scope may be used for, and from where. None: whatever else allows."""

    set_by = models.CharField(max_length=16, choices=SetBy, default=SetBy.OPERATOR)
    level = models.CharField(max_length=16)
    scope_id = models.UUIDField()
    allowed_models = ArrayField(models.CharField(max_length=128), null=True, blank=True)
    surfaces = ArrayField(models.CharField(max_length=32), null=True, blank=True)
    ip_ranges = ArrayField(models.CharField(max_length=50), null=True, blank=True)
    request_tokens_max = models.PositiveIntegerField(null=True, blank=True)
    changed_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "tenant_restriction"
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "level", "scope_id", "set_by"], name="tenant_restriction_once"
            ),
            models.CheckConstraint(
                condition=Q(set_by__in=SetBy.values), name="tenant_restriction_set_by"
            ),
            models.CheckConstraint(
                condition=Q(level__in=["organisation", "project", "key"]),
                name="tenant_restriction_level",
            ),
            models.CheckConstraint(
                condition=Q(request_tokens_max__isnull=True) | Q(request_tokens_max__gte=1),
                name="tenant_restriction_tokens",
            ),
            models.CheckConstraint(
                condition=~Q(level="organisation") | Q(scope_id=F("tenant")),
                name="tenant_restriction_organisation_is_its_own",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.level} {self.scope_id}"


class BalanceTopUp(TenantModel):
    """An amount paid into the organisation's prepaid balance. `reference` names the payment."""

    amount_nano = models.BigIntegerField()
    reference = models.CharField(max_length=120)
    paid_in_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "balance_top_up"
        ordering = ["-paid_in_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "reference"], name="balance_top_up_once"),
            models.CheckConstraint(condition=Q(amount_nano__gte=1), name="balance_top_up_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.amount_nano} nano, {self.reference}"
