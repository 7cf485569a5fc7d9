"""The JSON of the control API. Money is a decimal string beside its currency, never a number."""

from typing import Any
from uuid import UUID

from rest_framework import serializers

from billing.invoicing.models import Invoice
from meterplane.kernel import money


class OrganisationOut(serializers.Serializer[Any]):
    """An organisation."""

    id = serializers.UUIDField()
    slug = serializers.CharField()
    name = serializers.CharField()
    currency = serializers.CharField()
    standing = serializers.ChoiceField(choices=["active", "past_due", "suspended"])
    standing_reason = serializers.CharField(allow_blank=True)
    plan = serializers.SerializerMethodField()
    priority = serializers.ChoiceField(choices=["high", "normal", "low"])
    weight = serializers.IntegerField()
    created_at = serializers.DateTimeField()

    def get_plan(self, organisation: Any) -> str | None:
        """The plan's slug; null when only limits of its own hold."""
        return organisation.plan.slug if organisation.plan else None


class OrganisationIn(serializers.Serializer[Any]):
    """A new organisation and its owner."""

    slug = serializers.SlugField(max_length=40)
    name = serializers.CharField(max_length=120)
    owner_email = serializers.EmailField()
    owner_password = serializers.CharField(min_length=12, max_length=200, write_only=True)
    currency = serializers.CharField(max_length=3, default="USD")


class KeyOut(serializers.Serializer[Any]):
    """An API key, without its secret."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    project = serializers.CharField(source="project.slug")
    hint = serializers.SerializerMethodField()
    status = serializers.ChoiceField(choices=["active", "revoked"])
    created_at = serializers.DateTimeField()
    revoked_at = serializers.DateTimeField(allow_null=True)
    expires_at = serializers.DateTimeField(allow_null=True)
    replaces = serializers.UUIDField(source="replaces_id", allow_null=True)
    replaced_by = serializers.SerializerMethodField()

    def get_replaced_by(self, key: Any) -> UUID | None:
        """The key that takes this one's place; this one ends at `expires_at`, or has ended."""
        successor = getattr(key, "replaced_by", None)
        return None if successor is None else successor.id

    def get_hint(self, key: Any) -> str:
        """What is left of the secret: its first and last characters."""
        return f"{key.prefix}…{key.last4}"


class KeyCreated(KeyOut):
    """A new API key with its secret, which is shown this once."""

    secret = serializers.CharField()


class KeyIn(serializers.Serializer[Any]):
    """A new API key."""

    name = serializers.CharField(max_length=80)
    project = serializers.SlugField(default="default")
    expires_at = serializers.DateTimeField(required=False, allow_null=True, default=None)


class RotationIn(serializers.Serializer[Any]):
    """How long both keys work. Without any overlap the old one is revoked."""

    overlap_hours = serializers.IntegerField(default=24, min_value=0, max_value=720)


class OverHoldOut(serializers.Serializer[Any]):
    """What requests of a period held above what they cost, in one currency; failed ones aside."""

    currency = serializers.CharField()
    since = serializers.DateTimeField()
    until = serializers.DateTimeField()
    requests = serializers.IntegerField()
    mean = serializers.SerializerMethodField()
    p50 = serializers.SerializerMethodField()
    p95 = serializers.SerializerMethodField()
    held_per_cost = serializers.SerializerMethodField()

    def get_mean(self, each: Any) -> str:
        """Decimal string in `currency`, of one request."""
        return money.nano_to_text(each.mean_nano)

    def get_p50(self, each: Any) -> str:
        """Decimal string in `currency`, of one request."""
        return money.nano_to_text(each.p50_nano)

    def get_p95(self, each: Any) -> str:
        """Decimal string in `currency`, of one request."""
        return money.nano_to_text(each.p95_nano)

    def get_held_per_cost(self, each: Any) -> str | None:
        """What was held for one unit of what was spent; null of what is free."""
        ratio = each.held_per_cost
        return None if ratio is None else format(ratio, "f")


class ModelReservationsOut(serializers.Serializer[Any]):
    """What is held for a request of a model that names no bound of its output, and what was."""

    model = serializers.CharField(source="name")
    reserve = serializers.ChoiceField(choices=["bound", "history"])
    output_tokens_default = serializers.IntegerField()
    output_tokens_learned = serializers.IntegerField(allow_null=True)
    answers_learned_from = serializers.IntegerField()
    learned_at = serializers.DateTimeField(allow_null=True)
    over_hold = OverHoldOut(many=True, source="over_holds")


class InvoiceOut(serializers.Serializer[Any]):
    """An invoice without its lines; an interim one is of a month that goes on."""

    id = serializers.UUIDField()
    number = serializers.CharField(allow_null=True)
    kind = serializers.ChoiceField(choices=Invoice.Kind.values)
    status = serializers.ChoiceField(choices=Invoice.Status.values)
    currency = serializers.CharField()
    total = serializers.SerializerMethodField()
    period_start = serializers.DateTimeField()
    period_end = serializers.DateTimeField()
    hosted_url = serializers.CharField(allow_blank=True)

    def get_total(self, invoice: Any) -> str:
        """Decimal string in `currency`."""
        return money.minor_to_text(invoice.total_minor, invoice.currency)
