"""The JSON of credit. Amounts are decimal text, exact to the currency's minor unit."""

from typing import Any

from rest_framework import serializers

from billing.credits.models import METER_LENGTH_MAX, MODEL_LENGTH_MAX, PRIORITY_DEFAULT, Kind
from billing.credits.terms import SCOPE_NAMES_MAX
from meterplane.kernel.decimals import EXACT, NotExact, text_to_decimal
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import minor_digits, minor_to_text

TEXT_MAX = 40
_MOVED = ["drawn", "restored", "expired", "refunded", "rolled_over", "disputed", "reinstated"]


def minor_of(text: str, currency: str, field: str = "amount") -> int:
    """The minor units a text says. Raises `CallerError` `credit_invalid` for anything between."""
    digits = minor_digits(currency)
    try:
        scaled = EXACT.scaleb(text_to_decimal(text), digits)
    except NotExact:
        scaled = None
    if scaled is None or scaled != scaled.to_integral_value():
        raise CallerError(
            "credit_invalid",
            f"{text!r} is no amount in {currency}, as decimal text with at most {digits} decimals.",
            field=field,
        )
    return int(scaled)


class _Terms(serializers.Serializer[Any]):
    """What a grant is for, and when it is drawn: low priorities first."""

    kind = serializers.ChoiceField(choices=Kind.values)
    amount = serializers.CharField(max_length=TEXT_MAX)
    currency = serializers.CharField(max_length=3, required=False, allow_null=True, default=None)
    priority = serializers.IntegerField(
        min_value=0, max_value=100, required=False, default=PRIORITY_DEFAULT
    )
    models = serializers.ListField(
        child=serializers.CharField(max_length=MODEL_LENGTH_MAX),
        max_length=SCOPE_NAMES_MAX,
        required=False,
        default=list,
    )
    meters = serializers.ListField(
        child=serializers.CharField(max_length=METER_LENGTH_MAX),
        max_length=SCOPE_NAMES_MAX,
        required=False,
        default=list,
    )
    rollover_max = serializers.CharField(
        max_length=TEXT_MAX, required=False, allow_null=True, default=None
    )
    reason = serializers.CharField(max_length=200, required=False, allow_blank=True, default="")


class CreditIn(_Terms):
    """A grant. Empty `models` and `meters`: for everything. Live from `effective_at` (now) up to,
    not including, `expires_at` (never); on expiry up to `rollover_max` go over to a grant for as
    long again."""

    effective_at = serializers.DateTimeField(required=False, allow_null=True, default=None)
    expires_at = serializers.DateTimeField(required=False, allow_null=True, default=None)


class RecurringCreditIn(_Terms):
    """A grant each month from `starts_at` on, none at or after `ends_at`; each lasts `term_months`,
    null: until it is used up."""

    starts_at = serializers.DateTimeField()
    ends_at = serializers.DateTimeField(required=False, allow_null=True, default=None)
    term_months = serializers.IntegerField(
        min_value=1, max_value=120, required=False, allow_null=True, default=1
    )


class RecurrenceEnd(serializers.Serializer[Any]):
    """From when on nothing more is granted."""

    ends_at = serializers.DateTimeField()


class MovementOut(serializers.Serializer[Any]):
    """What became of a part of a grant; `at` is when it counts from, of a draw its period's end."""

    id = serializers.UUIDField()
    grant_id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=_MOVED)
    amount = serializers.SerializerMethodField()
    invoice_id = serializers.UUIDField(allow_null=True)
    at = serializers.DateTimeField()
    recorded_at = serializers.DateTimeField()

    def get_amount(self, moved: Any) -> str:
        """Decimal text."""
        return minor_to_text(moved.amount_minor, self.context["currency"])


class CreditOut(serializers.Serializer[Any]):
    """A grant and what is left of it."""

    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=Kind.values)
    state = serializers.ChoiceField(choices=["scheduled", "live", "used", "expired"])
    currency = serializers.CharField()
    amount = serializers.SerializerMethodField()
    remaining = serializers.SerializerMethodField()
    priority = serializers.IntegerField()
    effective_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(allow_null=True)
    models = serializers.ListField(source="models_only")
    meters = serializers.ListField(source="meters_only")
    rollover_max = serializers.SerializerMethodField()
    recurrence_id = serializers.UUIDField(allow_null=True)
    rolled_from_id = serializers.UUIDField(allow_null=True)
    reason = serializers.CharField(allow_blank=True)
    created_at = serializers.DateTimeField()
    created_by = serializers.CharField()

    def get_amount(self, grant: Any) -> str:
        """Decimal text."""
        return minor_to_text(grant.amount_minor, grant.currency)

    def get_remaining(self, grant: Any) -> str:
        """Decimal text."""
        return minor_to_text(grant.remaining_minor, grant.currency)

    def get_rollover_max(self, grant: Any) -> str | None:
        """Decimal text."""
        return _optional(grant.rollover_max_minor, grant.currency)


class CreditDetailOut(CreditOut):
    """A grant and all that became of it, newest first."""

    movements = serializers.SerializerMethodField()

    def get_movements(self, grant: Any) -> list[dict[str, Any]]:
        """What was drawn, given back, written off, refunded and rolled over."""
        shape = MovementOut(
            self.context["movements"], many=True, context={"currency": grant.currency}
        )
        return [dict(each) for each in shape.data]


class RecurringCreditOut(serializers.Serializer[Any]):
    """A grant that comes again each month."""

    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=Kind.values)
    currency = serializers.CharField()
    amount = serializers.SerializerMethodField()
    priority = serializers.IntegerField()
    starts_at = serializers.DateTimeField()
    ends_at = serializers.DateTimeField(allow_null=True)
    term_months = serializers.IntegerField(allow_null=True)
    models = serializers.ListField(source="models_only")
    meters = serializers.ListField(source="meters_only")
    rollover_max = serializers.SerializerMethodField()
    reason = serializers.CharField(allow_blank=True)

    def get_amount(self, row: Any) -> str:
        """Decimal text."""
        return minor_to_text(row.amount_minor, row.currency)

    def get_rollover_max(self, row: Any) -> str | None:
        """Decimal text."""
        return _optional(row.rollover_max_minor, row.currency)


class CreditHoldIn(serializers.Serializer[Any]):
    """Whether what credit does not cover is refused."""

    held_to_credit = serializers.BooleanField()


class CreditBalanceOut(serializers.Serializer[Any]):
    """What may be drawn now, and of which grants, in the order of drawing. Usage of the running
    period is drawn when the period is closed.

    Of an organisation that is held to its credit (`held_to_credit`, else null) `spendable` is what
    is admitted still, exact to the nano: what its grants cover but those for some models or meters,
    less `spent`, which is metered and not invoiced yet, and `held`, which open requests may use;
    null while that cannot be asked."""

    currency = serializers.CharField()
    total = serializers.CharField()
    purchased = serializers.CharField()
    promotional = serializers.CharField()
    expires_next_at = serializers.DateTimeField(allow_null=True)
    held_to_credit = serializers.BooleanField()
    spendable = serializers.CharField(allow_null=True)
    spent = serializers.CharField(allow_null=True)
    held = serializers.CharField(allow_null=True)
    grants = CreditOut(many=True)


class RefundOut(serializers.Serializer[Any]):
    """What is to be paid back of a grant."""

    grant_id = serializers.UUIDField()
    currency = serializers.CharField()
    refunded = serializers.CharField()


def _optional(amount_minor: int | None, currency: str) -> str | None:
    return None if amount_minor is None else minor_to_text(amount_minor, currency)
