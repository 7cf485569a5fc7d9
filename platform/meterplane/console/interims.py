"""Thresholds of interim invoices: a form for an organisation's own.

Guarantees: a form is stored by the verb that the control API calls; what it would refuse is refused
beside its field. An organisation that is not listed has the installation's default.
"""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest

from billing.invoicing.models import InterimThreshold
from billing.invoicing.thresholds import amount_minor, set_threshold, use_default
from meterplane.console import shown
from meterplane.console.read_only import ReadOnly
from meterplane.console.site import site
from meterplane.kernel import amounts
from meterplane.kernel.errors import CallerError
from tenants.scoping import tenant_scope


class ThresholdForm(forms.ModelForm):  # type: ignore[type-arg]
    """An amount as people write it. The organisation is a field that the page adds."""

    amount = forms.CharField(
        max_length=40,
        required=False,
        help_text="Unbilled spend from which an interim invoice is made, in the organisation's"
        " currency, as 500 or 499.50. Empty: never.",
    )

    class Meta:
        model = InterimThreshold
        fields = ()

    def _get_validation_exclusions(self) -> set[str]:
        """One that is there already is no mistake: it is replaced."""
        excluded: set[str] = super()._get_validation_exclusions()  # type: ignore[misc]
        return excluded | {"tenant"}

    def clean(self) -> dict[str, Any]:
        """By the check of the verb."""
        said: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.errors and said["amount"]:
            try:
                amount_minor(said["amount"].strip(), said["tenant"].currency)
            except CallerError as refused:
                self.add_error("amount", refused.message)
        return said


@admin.register(InterimThreshold, site=site)
class ThresholdPage(ReadOnly):
    """Thresholds of organisations that have their own."""

    form = ThresholdForm
    list_display = ("tenant", "shown_amount", "changed_at", "changed_by")
    list_select_related = ("tenant",)
    search_fields = ("tenant__slug", "tenant__name")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj is None:
            return ("tenant", "amount")
        return ("tenant", "shown_amount", "changed_at", "changed_by")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if obj is None else self.get_fields(request, obj)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """An organisation whose own is deleted has the default."""
        return self.has_view_permission(request, obj)

    def save_model(
        self, request: HttpRequest, row: InterimThreshold, form: ThresholdForm, change: bool
    ) -> None:
        """Set by the verb; one that is there already is replaced."""
        tenant = form.cleaned_data["tenant"]
        with tenant_scope(tenant.id):
            set_threshold(
                form.cleaned_data["amount"].strip() or None, by=f"operator {request.user}"
            )
            row.pk = InterimThreshold.objects.get().id

    def delete_model(self, request: HttpRequest, row: InterimThreshold) -> None:
        """Unset by the verb."""
        with tenant_scope(row.tenant_id):
            use_default()

    def delete_queryset(self, request: HttpRequest, rows: Any) -> None:
        """Each by the verb."""
        for row in rows:
            self.delete_model(request, row)

    @shown.column(description="From unbilled spend of", ordering="amount_minor")
    def shown_amount(self, row: InterimThreshold) -> str:
        if row.amount_minor is None:
            return "Never"
        return amounts.minor(row.amount_minor, row.tenant.currency)
