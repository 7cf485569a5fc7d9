"""What a customer can fill in."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from django import forms

from tenants.models import Project
from tenants.rotate import OVERLAP_DEFAULT


class KeyForm(forms.Form):
    """A new API key. `project` is checked again by the verb, in the tenant's door."""

    name = forms.CharField(
        max_length=80,
        help_text="Where it will be used, for example \N{LEFT DOUBLE QUOTATION MARK}production"
        " backend\N{RIGHT DOUBLE QUOTATION MARK}.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "autofocus": True}),
    )
    project = forms.TypedChoiceField(
        coerce=UUID, help_text="Usage and budgets are told apart by project."
    )

    def __init__(self, *args: Any, projects: Iterable[Project], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(str(project.id), project.name) for project in projects]
        self.fields["project"].choices = choices  # type: ignore[attr-defined]


class RotationForm(forms.Form):
    """How long a key works beside its successor."""

    OVERLAPS = (
        (0, "End it at once"),
        (1, "For 1 hour"),
        (24, "For 24 hours"),
        (7 * 24, "For 7 days"),
        (30 * 24, "For 30 days"),
    )
    overlap = forms.TypedChoiceField(
        label="The old key works on",
        choices=OVERLAPS,
        coerce=lambda hours: timedelta(hours=int(hours)),
        initial=OVERLAP_DEFAULT // timedelta(hours=1),
        help_text="Long enough to give every program the new one; never beyond its own expiry.",
    )
