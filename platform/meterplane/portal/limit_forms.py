"""What a customer can say of limits. Each field is checked again by the verb, in the tenant's door.

An amount is typed in the organisation's currency for spend, and as a whole number otherwise.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from django import forms

from meterplane.contracts import policy as contract
from meterplane.kernel import amounts
from meterplane.kernel.errors import CallerError
from meterplane.metering import labels
from meterplane.portal import limit_words
from tenants.limit_checks import IP_RANGES_MAX
from tenants.models import Restriction

Choices = Sequence[tuple[str, Sequence[tuple[str, str]]]]

WHATS: Choices = [
    (
        limit_words.KINDS[kind],
        [
            (f"{kind}:{window}", limit_words.label(kind, window))
            for window in contract.WINDOWS[kind]
            if window != "prepaid"
        ],
    )
    for kind in limit_words.CHOSEN_FROM
]
MODES = (
    ("enforce", "Refuse requests that go beyond it"),
    ("notify", "Only tell, refuse nothing"),
)
# Which field of a form says what a verb calls otherwise.
FIELDS = {
    "level": "scope",
    "scope_id": "scope",
    "kind": "what",
    "window": "what",
    "allowed_models": "models",
}


class AmountForm(forms.Form):
    """How much, and what happens beyond it. `kind` is the limit's."""

    amount = forms.DecimalField(
        min_value=0,
        max_digits=28,
        decimal_places=amounts.NANO_DIGITS,
        widget=forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off"}),
    )
    mode = forms.ChoiceField(label="When it is reached", choices=MODES)

    def __init__(self, *args: Any, kind: str = "", currency: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kind = kind
        self.fields["amount"].help_text = {
            "": f"In {currency} for spend, else a whole number.",
            "spend": f"In {currency}.",
        }.get(kind, "A whole number.")

    def clean(self) -> dict[str, Any]:
        """The amount as limits count it: nano of spend, else units."""
        cleaned = super().clean() or self.cleaned_data
        kind = self.kind or cleaned.get("what", ":").partition(":")[0]
        typed: Decimal | None = cleaned.get("amount")
        if kind and typed is not None:
            scaled = typed.scaleb(amounts.NANO_DIGITS if kind == "spend" else 0)
            if scaled != scaled.to_integral_value():
                self.add_error("amount", "Enter a whole number: only spend has decimals.")
            else:
                cleaned["amount"] = int(scaled)
        return cleaned

    def refuse(self, refused: CallerError) -> None:
        """What a verb refused, at the field it is about."""
        field = FIELDS.get(refused.field or "", refused.field)
        self.add_error(field if field in self.fields else None, refused.message)


class LimitForm(AmountForm):
    """A new limit, of one scope."""

    scope = forms.ChoiceField(label="For", help_text="What is set at each level holds together.")
    what = forms.ChoiceField(label="What is limited", choices=WHATS, initial="spend:month")
    model = forms.ChoiceField(
        label="Model",
        required=False,
        help_text="A limit of one model is an API key\N{RIGHT SINGLE QUOTATION MARK}s.",
    )
    field_order = ("scope", "what", "amount", "model", "mode")

    def __init__(self, *args: Any, scopes: Choices, models: Iterable[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["scope"].choices = scopes  # type: ignore[attr-defined]
        every = [("", "All models"), *((name, name) for name in models)]
        self.fields["model"].choices = every  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if cleaned.get("model") and not cleaned.get("scope", "key:").startswith("key:"):
            self.add_error("model", "Choose an API key above, or all models.")
        return cleaned


class RaiseForm(AmountForm):
    """Another amount until an instant."""

    until = forms.DateTimeField(
        label="Until (UTC)",
        help_text="Then the limit holds again, by itself.",
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )
    field_order = ("amount", "until")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.fields["mode"]


class RestrictionForm(forms.Form):
    """What the keys of a scope may be used for. What is left empty restricts nothing."""

    scope = forms.ChoiceField(label="For")
    models = forms.MultipleChoiceField(
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="None ticked: every model on offer.",
    )
    surfaces = forms.MultipleChoiceField(
        label="Kinds of call",
        required=False,
        choices=tuple(labels.SURFACES.items()),
        widget=forms.CheckboxSelectMultiple,
        help_text="None ticked: all of them.",
    )
    ip_ranges = forms.CharField(
        label="From addresses",
        required=False,
        max_length=IP_RANGES_MAX * 60,
        help_text="One a line, as 203.0.113.7 or 203.0.113.0/24. Empty: from anywhere.",
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false", "class": "mono"}),
    )
    request_tokens_max = forms.IntegerField(
        label="Tokens per request",
        required=False,
        help_text="At most, input and output together. Empty: as many as the model takes.",
        widget=forms.TextInput(attrs={"inputmode": "numeric", "autocomplete": "off"}),
    )

    def __init__(self, *args: Any, scopes: Choices, models: Iterable[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["scope"].choices = scopes  # type: ignore[attr-defined]
        self.fields["models"].choices = [(name, name) for name in models]  # type: ignore[attr-defined]

    def said(self) -> dict[str, Any]:
        """What `set_restriction` takes; None where nothing is restricted."""
        lines = self.cleaned_data["ip_ranges"].splitlines()
        return {
            "models": self.cleaned_data["models"] or None,
            "surfaces": self.cleaned_data["surfaces"] or None,
            "ip_ranges": [line.strip() for line in lines if line.strip()] or None,
            "request_tokens_max": self.cleaned_data["request_tokens_max"],
        }

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.errors and all(value is None for value in self.said().values()):
            self.add_error(None, "Say what is restricted: a model, a kind of call, an address or a"
                           " number of tokens.")  # fmt: skip
        return cleaned

    def refuse(self, refused: CallerError) -> None:
        """What a verb refused, at the field it is about."""
        field = FIELDS.get(refused.field or "", refused.field)
        self.add_error(field if field in self.fields else None, refused.message)


def as_typed(row: Restriction) -> dict[str, Any]:
    """A restriction as its form shows it."""
    return {
        "models": row.allowed_models or [],
        "surfaces": row.surfaces or [],
        "ip_ranges": "\n".join(row.ip_ranges or []),
        "request_tokens_max": row.request_tokens_max,
    }
