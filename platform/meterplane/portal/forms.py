"""What a customer can fill in."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django import forms

from tenants.models import Project


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
