"""Organisations and what belongs to them. State and constraints only; verbs live beside."""

from django.conf import settings
from django.db import models
from django.db.models import Q

from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from tenants.limit_models import BalanceTopUp, Limit, Plan, Restriction, SetBy
from tenants.scoping import TenantManager, TenantModel

__all__ = [
    "ApiKey",
    "BalanceTopUp",
    "Limit",
    "Member",
    "OperatorKey",
    "Organisation",
    "Plan",
    "Project",
    "Restriction",
    "SetBy",
]


class OrganisationManager(TenantManager["Organisation"]):
    """An organisation is its own tenant."""

    tenant_field = "id"


class Organisation(models.Model):
    """The customer: it owns keys and usage, and it is who an invoice is sent to."""

    class Standing(models.TextChoices):
        ACTIVE = "active", "Active"
        PAST_DUE = "past_due", "Past due"
        SUSPENDED = "suspended", "Suspended"

    class Priority(models.TextChoices):
        HIGH = "high", "High"
        NORMAL = "normal", "Normal"
        LOW = "low", "Low"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    slug = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=120)
    currency = models.CharField(max_length=3, default="USD")
    standing = models.CharField(max_length=16, choices=Standing, default=Standing.ACTIVE)
    standing_reason = models.CharField(max_length=200, blank=True, default="")
    plan = models.ForeignKey(
        "tenants.Plan", null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    priority = models.CharField(max_length=8, choices=Priority, default=Priority.NORMAL)
    weight = models.PositiveSmallIntegerField(default=1)
    # Below which prepaid balance it is told, in nano; 0: never. None: a tenth of the last payment.
    balance_alert_nano = models.BigIntegerField(null=True, blank=True)
    is_demo = models.BooleanField(default=False)
    created_at = models.DateTimeField(default=clock.now)

    objects = OrganisationManager()

    class Meta:
        db_table = "organisation"
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(standing__in=["active", "past_due", "suspended"]),
                name="organisation_standing_known",
            ),
            models.CheckConstraint(
                condition=Q(currency__regex=r"^[A-Z]{3}$"), name="organisation_currency_iso"
            ),
            models.CheckConstraint(
                condition=Q(
                    priority__in=["high", "normal", "low"], weight__gte=1, weight__lte=1000
                ),
                name="organisation_priority_known",
            ),
            models.CheckConstraint(
                condition=Q(balance_alert_nano__isnull=True) | Q(balance_alert_nano__gte=0),
                name="organisation_balance_alert",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Project(TenantModel):
    """A part of an organisation that keys, usage and budgets are told apart by."""

    slug = models.SlugField(max_length=40)
    name = models.CharField(max_length=120)
    created_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "project"
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "slug"], name="project_slug_once"),
        ]

    def __str__(self) -> str:
        return self.name


class Member(TenantModel):
    """A user's role in an organisation."""

    class Role(models.TextChoices):
        OWNER = "owner", "Owner"
        ADMIN = "admin", "Admin"
        DEVELOPER = "developer", "Developer"
        BILLING = "billing", "Billing"
        VIEWER = "viewer", "Viewer"

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships"
    )
    role = models.CharField(max_length=16, choices=Role)
    created_at = models.DateTimeField(default=clock.now)

    class Meta:
        db_table = "member"
        constraints = [
            models.UniqueConstraint(fields=["tenant", "user"], name="member_once"),
            models.CheckConstraint(
                condition=Q(role__in=["owner", "admin", "developer", "billing", "viewer"]),
                name="member_role_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} {self.role}"


class ApiKey(TenantModel):
    """A tenant's credential for the gateway. The secret itself is nowhere."""

    class Status(models.TextChoices):
        ACTIVE = "active", "Active"
        REVOKED = "revoked", "Revoked"

    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="+")
    name = models.CharField(max_length=80)
    digest = models.BinaryField(unique=True, editable=False)
    prefix = models.CharField(max_length=16, editable=False)
    last4 = models.CharField(max_length=4, editable=False)
    status = models.CharField(max_length=16, choices=Status, default=Status.ACTIVE)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(default=clock.now)
    revoked_at = models.DateTimeField(null=True, blank=True)
    # What its limits are counted under: its own id, or that of the key it replaced. None: its own.
    limits_scope_id = models.UUIDField(null=True, blank=True, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    # The key whose place this one takes. A key is replaced once.
    replaces = models.OneToOneField(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="replaced_by"
    )

    class Meta:
        db_table = "api_key"
        ordering = ["-created_at"]
        verbose_name = "API key"
        constraints = [
            models.CheckConstraint(
                condition=Q(status="active", revoked_at__isnull=True)
                | Q(status="revoked", revoked_at__isnull=False),
                name="api_key_revoked_at_iff_revoked",
            ),
            models.CheckConstraint(
                condition=~Q(replaces=models.F("id")), name="api_key_replaces_another"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…{self.last4})"


class LeakReport(TenantModel):
    """A live key was found where everyone could read it, and revoked. Its owner is to be told.

    `found_url` is what a stranger wrote: to be shown as text, never followed.
    """

    key = models.OneToOneField(ApiKey, on_delete=models.PROTECT, related_name="+")
    found_url = models.CharField(max_length=500, blank=True, default="")
    reported_at = models.DateTimeField(default=clock.now)
    dismissed_at = models.DateTimeField(null=True, blank=True)
    dismissed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        db_table = "leak_report"
        ordering = ["-reported_at"]

    def __str__(self) -> str:
        return f"{self.key_id} at {self.reported_at:%Y-%m-%d %H:%M}"


class OperatorKey(models.Model):
    """A credential for the control API. It cannot infer, and belongs to no tenant."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=80, unique=True)
    digest = models.BinaryField(unique=True, editable=False)
    last4 = models.CharField(max_length=4, editable=False)
    created_at = models.DateTimeField(default=clock.now)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "operator_key"

    def __str__(self) -> str:
        return f"{self.name} (…{self.last4})"
