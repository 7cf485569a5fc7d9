"""Plans: what organisations may use, as far as nothing else is said for one of them.

Guarantees: a form is stored by the verb that the control API calls, in one transaction with the
policies of everybody on the plan; a form it would refuse is refused beside its field.
"""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest

from meterplane.console.model_form import ListField
from meterplane.console.read_only import ReadOnly
from meterplane.console.site import site
from meterplane.kernel.errors import CallerError
from tenants.models import Plan
from tenants.plans import checked_limits, checked_restrictions, set_plan_limits

LIMITS_HELP = (
    'A list, as [{"level": "organisation", "kind": "requests", "window": "minute", "amount": 600,'
    ' "burst": 50}, {"level": "key", "kind": "spend", "window": "month", "amount": 5000000000}].'
    " Spend is in nano (a thousand-millionth) of the organisation's currency. Also: mode (enforce"
    " or notify), and model, for level key_model. A limit of level project or key holds for each"
    " by itself."
)


RESTRICTIONS_HELP = (
    'An object, as {"models": ["tiny-lm"], "surfaces": ["openai.chat"], "ip_ranges":'
    ' ["203.0.113.0/24"], "request_tokens_max": 4000}; what is left out is not restricted. What is'
    " said for one organisation replaces it there, each by itself; for a project or a key, it can"
    " only be narrowed."
)


class PlanForm(forms.ModelForm):  # type: ignore[type-arg]
    """A plan's words, limits and restrictions."""

    class Meta:
        model = Plan
        fields = ("slug", "name", "description", "limits", "restrictions")
        field_classes = {"limits": ListField}
        help_texts = {"limits": LIMITS_HELP, "restrictions": RESTRICTIONS_HELP}

    def clean_limits(self) -> list[dict[str, Any]]:
        """By the check of the verb."""
        try:
            return checked_limits(self.cleaned_data["limits"])
        except CallerError as refused:
            raise forms.ValidationError(refused.message) from None

    def clean_restrictions(self) -> dict[str, Any]:
        """By the check of the verb; an empty field restricts nothing."""
        try:
            return checked_restrictions(self.cleaned_data["restrictions"] or {})
        except CallerError as refused:
            raise forms.ValidationError(refused.message) from None


@admin.register(Plan, site=site)
class PlanPage(ReadOnly):
    """Tiers. Which organisation is on which is on its own page."""

    form = PlanForm
    list_display = ("name", "slug", "description", "created_at")
    search_fields = ("slug", "name")
    fields = ("slug", "name", "description", "limits", "restrictions", "created_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """A slug is for ever: programs name the plan by it."""
        return ("created_at",) if obj is None else ("slug", "created_at")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request, obj)

    def save_model(self, request: HttpRequest, row: Plan, form: PlanForm, change: bool) -> None:
        """Store the form, and compile what the gateways read of it."""
        stored = set_plan_limits(
            slug=row.slug,
            name=row.name,
            description=row.description,
            limits=row.limits,
            restrictions=row.restrictions,
        )
        row.pk = stored.pk
