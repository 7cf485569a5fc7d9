"""The JSON of cards, top-ups and auto-reload. Amounts are decimal text in the organisation's
currency."""

from typing import Any

from rest_framework import serializers

from billing.payments.models import TopUp
from billing.payments.money_in import AutoReloadView, TopUpView
from meterplane.kernel.money import minor_to_text

TEXT_MAX = 40


class RedirectOut(serializers.Serializer[Any]):
    """Where to send the customer: the payment provider's page, which leads back to the portal."""

    url = serializers.CharField()


class CardOut(serializers.Serializer[Any]):
    """A card, as it was last read at the payment provider."""

    brand = serializers.CharField()
    last4 = serializers.CharField(allow_blank=True)


class PaymentMethodsOut(serializers.Serializer[Any]):
    """`default` is what is charged; null without one."""

    default = CardOut(allow_null=True)


class TopUpIn(serializers.Serializer[Any]):
    """How much credit to buy."""

    amount = serializers.CharField(max_length=TEXT_MAX)


class TopUpOut(serializers.Serializer[Any]):
    """Credit paid ahead. Paid, it has its grant; parked, what was paid is not what was asked for,
    and a person must look."""

    id = serializers.UUIDField()
    origin = serializers.ChoiceField(choices=TopUp.Origin.values)
    amount = serializers.CharField()
    currency = serializers.CharField()
    state = serializers.ChoiceField(choices=TopUp.State.values)
    note = serializers.CharField(allow_blank=True)
    grant_id = serializers.UUIDField(allow_null=True)
    created_at = serializers.DateTimeField()
    created_by = serializers.CharField()
    settled_at = serializers.DateTimeField(allow_null=True)


class TopUpOpenedOut(TopUpOut):
    """`url`: where it is paid; null once it cannot be any more."""

    url = serializers.CharField(allow_null=True)


class AutoReloadIn(serializers.Serializer[Any]):
    """Buy `amount` when less than `threshold` is left, and at most `month_max` in a calendar month
    (UTC)."""

    is_on = serializers.BooleanField()
    threshold = serializers.CharField(max_length=TEXT_MAX)
    amount = serializers.CharField(max_length=TEXT_MAX)
    month_max = serializers.CharField(max_length=TEXT_MAX)


class AutoReloadOut(serializers.Serializer[Any]):
    """The rules, and where the running month stands; amounts are null where none were ever set.
    Paused, nothing is charged until the card changes or it is resumed."""

    is_on = serializers.BooleanField()
    currency = serializers.CharField()
    threshold = serializers.CharField(allow_null=True)
    amount = serializers.CharField(allow_null=True)
    month_max = serializers.CharField(allow_null=True)
    reloaded_this_month = serializers.CharField()
    paused_at = serializers.DateTimeField(allow_null=True)
    pause_note = serializers.CharField(allow_blank=True)


def top_up(found: TopUpView) -> dict[str, Any]:
    """As `TopUpOut` takes it."""
    names = ("id", "origin", "currency", "state", "note", "grant_id", "created_at", "created_by")
    told = {name: getattr(found, name) for name in (*names, "settled_at")}
    return told | {"amount": minor_to_text(found.amount_minor, found.currency)}


def auto_reload(found: AutoReloadView) -> dict[str, Any]:
    """As `AutoReloadOut` takes it."""

    def text(minor: int | None) -> str | None:
        return None if minor is None else minor_to_text(minor, found.currency)

    return {
        "is_on": found.is_on,
        "currency": found.currency,
        "threshold": text(found.threshold_minor),
        "amount": text(found.amount_minor),
        "month_max": text(found.month_max_minor),
        "reloaded_this_month": text(found.reloaded_minor),
        "paused_at": found.paused_at,
        "pause_note": found.pause_note,
    }
