"""The JSON of how invoices are paid, and of what is done when they are not."""

from typing import Any

from rest_framework import serializers

from billing.payments.dunning_policy import DAY_MAX, DAYS_MAX, ENDS
from billing.payments.models import DunningStep, Method
from billing.payments.terms_models import (
    DAYS_UNTIL_DUE_MAX,
    REASON_CHARS_MAX,
    REFERENCE_CHARS_MAX,
)


class CollectionTermsIn(serializers.Serializer[Any]):
    """Who moves the money, and when an invoice is due that is not charged."""

    method = serializers.ChoiceField(choices=Method.values)
    days_until_due = serializers.IntegerField(min_value=0, max_value=DAYS_UNTIL_DUE_MAX)


class CollectionTermsOut(CollectionTermsIn):
    """What the next invoices are issued under."""


def _days(at_least: int) -> serializers.ListField:
    day = serializers.IntegerField(min_value=at_least, max_value=DAY_MAX)
    return serializers.ListField(child=day, max_length=DAYS_MAX)


class DunningPolicyIn(serializers.Serializer[Any]):
    """Days count from the first failure to charge, or from the due date of what is not charged. A
    null `suspend_day` suspends nobody; `end_day` goes with `mark_uncollectible`."""

    charge_days = _days(1)
    mail_days = _days(0)
    suspend_day = serializers.IntegerField(min_value=1, max_value=DAY_MAX, allow_null=True)
    end_day = serializers.IntegerField(min_value=1, max_value=DAY_MAX, allow_null=True)
    end = serializers.ChoiceField(choices=ENDS)


class DunningPolicyOut(DunningPolicyIn):
    """What holds now, and who said so."""

    origin = serializers.ChoiceField(choices=["organisation", "installation", "shipped"])


class DunningStepOut(serializers.Serializer[Any]):
    """One act that was taken, and what came of it."""

    step = serializers.CharField()
    kind = serializers.ChoiceField(choices=DunningStep.Kind.values)
    due_at = serializers.DateTimeField()
    done_at = serializers.DateTimeField(allow_null=True)
    note = serializers.CharField(allow_blank=True)


class OwedOut(serializers.Serializer[Any]):
    """An overdue invoice: what is left to pay, and what happens next."""

    invoice = serializers.UUIDField()
    number = serializers.CharField()
    currency = serializers.CharField()
    left = serializers.CharField()
    overdue_at = serializers.DateTimeField()
    why = serializers.CharField(allow_blank=True)
    next_act = serializers.CharField(allow_blank=True)
    next_at = serializers.DateTimeField(allow_null=True)
    pay_url = serializers.CharField()
    steps = DunningStepOut(many=True)


class PaymentIn(serializers.Serializer[Any]):
    """Money that arrived: a decimal text in the invoice's currency. The reference names it: sent
    again, it counts once."""

    amount = serializers.CharField(max_length=40)
    paid_on = serializers.DateField()
    reference = serializers.CharField(max_length=REFERENCE_CHARS_MAX)


class TakeBackIn(serializers.Serializer[Any]):
    """Why a payment was none after all."""

    reason = serializers.CharField(max_length=REASON_CHARS_MAX)


class PaymentOut(serializers.Serializer[Any]):
    """A payment that was recorded; or, below zero, that one was taken back, and why."""

    id = serializers.UUIDField()
    amount = serializers.CharField()
    paid_on = serializers.DateField()
    reference = serializers.CharField()
    recorded_by = serializers.CharField()
    recorded_at = serializers.DateTimeField()
    takes_back = serializers.UUIDField(allow_null=True)
    reason = serializers.CharField(allow_blank=True)


class PaymentsOut(serializers.Serializer[Any]):
    """What arrived for an invoice, and what is left."""

    status = serializers.CharField()
    currency = serializers.CharField()
    left = serializers.CharField()
    payments = PaymentOut(many=True)
