"""The JSON of limits. An amount is decimal text: of the currency for spend, else a whole number."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, get_args

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from meterplane.contracts import policy as contract
from meterplane.contracts.usage import Surface
from meterplane.kernel import money
from meterplane.kernel.errors import CallerError
from meterplane.policy.limits_shown import ShownLimit
from tenants.limit_checks import MODELS_MAX
from tenants.plans import RESTRICTIONS

LEVELS = list(get_args(contract.LimitLevel))
KINDS = list(contract.WINDOWS)
WINDOWS = list(get_args(contract.LimitWindow))
MODES = list(get_args(contract.LimitMode))
PRIORITIES = list(get_args(contract.Priority))
SCOPES = ["organisation", "project", "key"]
SETTERS = ["operator", "organisation"]
TEXT_MAX = 40  # of an amount: nineteen digits, a point and nine more


def amount_text(kind: str, amount: int | None) -> str | None:
    """A limit's amount as it is told."""
    if amount is None:
        return None
    return money.nano_to_text(amount) if kind == "spend" else str(amount)


def amount_of(kind: str, text: str | None, field: str = "amount") -> int | None:
    """The amount a text says: nano for spend. Raises `CallerError` `limit_invalid`."""
    if text is None:
        return None
    scale, what = (9, "with at most nine decimals") if kind == "spend" else (0, "that is whole")
    try:
        scaled = Decimal(text).scaleb(scale)
    except InvalidOperation:
        scaled = Decimal("NaN")
    if not scaled.is_finite() or scaled != scaled.to_integral_value():
        raise CallerError(
            "limit_invalid", f"{text!r} is no amount {what}, as decimal text.", field=field
        )
    return int(scaled)


class TermsIn(serializers.Serializer[Any]):
    """What a limit says. `burst` is of requests per second and minute; without one, the amount."""

    level = serializers.ChoiceField(choices=LEVELS)
    kind = serializers.ChoiceField(choices=KINDS)
    window = serializers.ChoiceField(choices=WINDOWS)
    amount = serializers.CharField(max_length=TEXT_MAX)
    burst = serializers.IntegerField(required=False, allow_null=True, default=None, min_value=1)
    mode = serializers.ChoiceField(choices=MODES, default="enforce")
    model = serializers.CharField(max_length=128, required=False, allow_blank=True, default="")


class LimitIn(TermsIn):
    """A limit at one scope. Without `amount` (null), nothing limits it here, whatever the plan
    says. `scope_id` is a project's or a key's (of level key_model, too); the organisation needs
    none."""

    scope_id = serializers.UUIDField(required=False, allow_null=True, default=None)
    amount = serializers.CharField(max_length=TEXT_MAX, allow_null=True)


class RaiseIn(serializers.Serializer[Any]):
    """Another amount until an instant."""

    amount = serializers.CharField(max_length=TEXT_MAX)
    until = serializers.DateTimeField()


class LimitOut(serializers.Serializer[Any]):
    """A limit that holds. `source` says whose it is: `organisation`, one it set for itself, which
    can only narrow; `id` is not there for a plan's.

    `amount` null: the plan's limit is lifted. `spent` and `left` are of spend limits: what metered
    usage says of the window, without requests that run now.
    """

    id = serializers.UUIDField(source="limit_id", allow_null=True)
    level = serializers.ChoiceField(choices=LEVELS)
    scope_id = serializers.UUIDField()
    scope_name = serializers.CharField()
    kind = serializers.ChoiceField(choices=KINDS)
    window = serializers.ChoiceField(choices=WINDOWS)
    model = serializers.CharField(allow_blank=True)
    amount = serializers.SerializerMethodField()
    burst = serializers.IntegerField(allow_null=True)
    mode = serializers.ChoiceField(choices=MODES)
    source = serializers.ChoiceField(choices=["plan", "override", "organisation"])  # type: ignore[assignment]  # DRF keeps fields elsewhere
    raised_to = serializers.SerializerMethodField()
    raised_until = serializers.DateTimeField(allow_null=True)
    spent = serializers.SerializerMethodField()
    left = serializers.SerializerMethodField()
    resets_at = serializers.DateTimeField(allow_null=True)

    def get_amount(self, limit: ShownLimit) -> str | None:
        """Decimal text."""
        return amount_text(limit.kind, limit.amount)

    def get_raised_to(self, limit: ShownLimit) -> str | None:
        """Decimal text; what holds until `raised_until`."""
        return amount_text(limit.kind, limit.raised_to)

    def get_spent(self, limit: ShownLimit) -> str | None:
        """Decimal text in the organisation's currency."""
        return amount_text(limit.kind, limit.spent_nano)

    def get_left(self, limit: ShownLimit) -> str | None:
        """Decimal text in the organisation's currency."""
        return amount_text(limit.kind, limit.left_nano)


class PlanRestrictions(serializers.Serializer[Any]):
    """What keys may be used for, and from where. null, or left out: nothing is said of it."""

    models = serializers.ListField(
        child=serializers.CharField(max_length=128),
        allow_null=True,
        required=False,
        default=None,
        max_length=MODELS_MAX,
    )
    surfaces = serializers.ListField(
        child=serializers.ChoiceField(choices=list(get_args(Surface))),
        allow_null=True,
        required=False,
        default=None,
    )
    ip_ranges = serializers.ListField(
        child=serializers.CharField(max_length=50),
        allow_null=True,
        required=False,
        default=None,
    )
    request_tokens_max = serializers.IntegerField(allow_null=True, required=False, default=None)


class PlanOut(serializers.Serializer[Any]):
    """A plan: what holds for whoever is on it, as far as nothing else is said for them."""

    slug = serializers.CharField()
    name = serializers.CharField()
    description = serializers.CharField(allow_blank=True)
    limits = serializers.SerializerMethodField()
    restrictions = serializers.SerializerMethodField()

    def get_limits(self, plan: Any) -> list[dict[str, Any]]:
        """The limits; a limit of level key holds for each key by itself."""
        return [
            each | {"amount": amount_text(each["kind"], each["amount"])} for each in plan.limits
        ]

    @extend_schema_field(PlanRestrictions)
    def get_restrictions(self, plan: Any) -> dict[str, Any]:
        """What the keys of every organisation on it may be used for."""
        return dict.fromkeys(RESTRICTIONS) | dict(plan.restrictions)


class PlanIn(serializers.Serializer[Any]):
    """A plan's new words, limits and restrictions, all of them."""

    name = serializers.CharField(max_length=80)
    description = serializers.CharField(
        max_length=200, required=False, allow_blank=True, default=""
    )
    limits = serializers.ListField(child=TermsIn(), max_length=100)
    restrictions = PlanRestrictions(required=False, default=dict)


class PlanChoice(serializers.Serializer[Any]):
    """The plan of an organisation; null: only limits of its own hold."""

    plan = serializers.SlugField(max_length=40, allow_null=True)


class PriorityBody(serializers.Serializer[Any]):
    """Who is served first where a model is busy: classes strictly, those of one class by weight."""

    priority = serializers.ChoiceField(choices=PRIORITIES)
    weight = serializers.IntegerField(min_value=1, max_value=1000)


class RestrictionBody(PlanRestrictions):
    """What the keys of a scope may be used for, and from where. null: nothing is said of it.

    Of an organisation it replaces, field by field, what its plan says. What an organisation sets
    for itself (`set_by`) is told beside what an operator sets, and narrows it.
    """

    level = serializers.ChoiceField(choices=SCOPES)
    scope_id = serializers.UUIDField(required=False, allow_null=True, default=None)
    models = serializers.ListField(
        child=serializers.CharField(max_length=128),
        source="allowed_models",
        allow_null=True,
        required=False,
        default=None,
        max_length=MODELS_MAX,
    )
    set_by = serializers.ChoiceField(choices=SETTERS, read_only=True)


class PaymentIn(serializers.Serializer[Any]):
    """A payment into the prepaid balance, in the organisation's currency."""

    amount = serializers.CharField(max_length=TEXT_MAX)


class BalanceOut(serializers.Serializer[Any]):
    """All that was ever paid in, what of it was spent, and the rest."""

    currency = serializers.CharField()
    paid_in = serializers.CharField()
    spent = serializers.CharField()
    left = serializers.CharField()


def terms(said: Mapping[str, Any]) -> dict[str, Any]:
    """What the verbs take of a limit that came in."""
    return dict(said) | {"amount": amount_of(said["kind"], said["amount"])}
