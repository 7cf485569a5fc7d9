"""Amounts that are paid ahead, as forms. What each may be is checked by the verb."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from django import forms

from billing.payments.auto_reload import ReloadTerms
from billing.payments.money_in import AutoReloadView
from billing.payments.top_up_terms import least_minor, most_minor
from meterplane.kernel import amounts
from meterplane.kernel.errors import CallerError
from meterplane.kernel.money import minor_to_text

_DECIMAL = {"inputmode": "decimal", "autocomplete": "off"}


class _Refusing(forms.Form):
    def refuse(self, refused: CallerError) -> None:
        """Say at its field why the verb refused."""
        self.add_error(refused.field if refused.field in self.fields else None, refused.message)


def _amount(label: str = "", help_text: str = "") -> forms.CharField:
    return forms.CharField(
        label=label or None,
        max_length=40,
        help_text=help_text,
        widget=forms.TextInput(attrs=_DECIMAL),
    )


class TopUpForm(_Refusing):
    """How much credit to buy. `press` names this form: sent twice, it is one top-up."""

    amount = _amount()
    press = forms.UUIDField(widget=forms.HiddenInput)

    def __init__(self, data: Mapping[str, Any] | None, *, currency: str) -> None:
        super().__init__(data, initial={"press": uuid4()})
        least, most = least_minor(currency), most_minor(currency)
        self.fields[
            "amount"
        ].help_text = (
            f"In {currency}, {amounts.minor(least, currency)} to {amounts.minor(most, currency)}."
        )

    def refuse(self, refused: CallerError) -> None:
        """What is sent next is another top-up: the refused one keeps its name."""
        super().refuse(refused)
        self.data = {**self.data, "press": str(uuid4())}


class AutoReloadForm(_Refusing):
    """When credit pays itself ahead."""

    is_on = forms.TypedChoiceField(
        label="Auto-reload",
        choices=[("on", "On: charge the card on file when credit runs low"), ("off", "Off")],
        coerce=lambda said: said == "on",
    )
    threshold = _amount("When less than", "Of credit is left, the running month taken off.")
    amount = _amount("Buy")
    month_max = _amount("At most, in a month", "Calendar months in UTC. Bought by hand is beside.")

    def __init__(self, data: Mapping[str, Any] | None, *, rules: AutoReloadView) -> None:
        super().__init__(data, initial=_initial(rules))
        least, most = least_minor(rules.currency), most_minor(rules.currency)
        self.fields["amount"].help_text = (
            f"In {rules.currency}, {amounts.minor(least, rules.currency)} to "
            f"{amounts.minor(most, rules.currency)} at once."
        )

    def said(self) -> ReloadTerms:
        """For the verb."""
        given = self.cleaned_data
        return ReloadTerms(given["is_on"], given["threshold"], given["amount"], given["month_max"])


def _initial(rules: AutoReloadView) -> dict[str, str]:
    """What holds; for who never had any, off is the last thing to propose."""
    named = {
        "threshold": rules.threshold_minor,
        "amount": rules.amount_minor,
        "month_max": rules.month_max_minor,
    }
    texts = {
        name: minor_to_text(minor, rules.currency)
        for name, minor in named.items()
        if minor is not None
    }
    return {"is_on": "off" if texts and not rules.is_on else "on", **texts}
