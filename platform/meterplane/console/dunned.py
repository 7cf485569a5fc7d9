"""What is done when invoices are not paid: the installation's policy, those of organisations, and
where each unpaid invoice stands.

Guarantees: forms are stored by the verbs that the control API calls; what those would refuse is
refused beside its field. A policy holds at once, for cases that are open too.
"""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import linebreaksbr
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from billing.payments import dunning_policy
from billing.payments.by_hand import left_minor
from billing.payments.models import DunningCase, DunningOverride, DunningPolicy, DunningStep
from billing.payments.owed import owed_of
from meterplane.console import shown
from meterplane.console.read_only import ReadOnly
from meterplane.console.site import site
from meterplane.kernel import amounts
from meterplane.kernel.errors import CallerError
from tenants.scoping import tenant_scope

STEP_LABELS = {"begun": "warning", "done": "success"}
FIELDS = ("charge_days", "mail_days", "suspend_day", "end", "end_day")
END_CHOICES = [
    ("keep_open", "Keep the invoice open"),
    ("mark_uncollectible", "Mark it uncollectible"),
]


def _days(help_text: str) -> forms.CharField:
    return forms.CharField(
        required=False, max_length=60, widget=UnfoldAdminTextInputWidget, help_text=help_text
    )


class PolicyForm(forms.ModelForm):  # type: ignore[type-arg]
    """A policy as people write it: days, as 3, 5, 7."""

    charge_days = _days("Charge again on these days after the first failure, as 3, 5, 7.")
    mail_days = _days("Write to owners and billing members on these days; 0 is at once.")
    suspend_day = _days("Suspend inference on this day; the days before are grace. Empty: never.")
    end = forms.ChoiceField(choices=END_CHOICES, widget=UnfoldAdminSelectWidget)
    end_day = _days("The day on which an invoice is marked uncollectible. Empty where it stays.")

    class Meta:
        model = DunningPolicy
        fields = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        document = self.instance.document or dunning_policy.SHIPPED.document
        for name in ("charge_days", "mail_days"):
            self.fields[name].initial = ", ".join(str(day) for day in document[name])
        for name in ("suspend_day", "end_day", "end"):
            self.fields[name].initial = document[name]

    def _get_validation_exclusions(self) -> set[str]:
        """One that is there already is no mistake: it is replaced."""
        excluded: set[str] = super()._get_validation_exclusions()  # type: ignore[misc]
        return excluded | {"tenant"}

    def clean(self) -> dict[str, Any]:
        """By the check of the verb."""
        said: dict[str, Any] = super().clean() or self.cleaned_data
        if self.errors:
            return said
        try:
            said["document"] = {
                "charge_days": _numbers(said["charge_days"]),
                "mail_days": _numbers(said["mail_days"]),
                "suspend_day": next(iter(_numbers(said["suspend_day"])), None),
                "end_day": next(iter(_numbers(said["end_day"])), None),
                "end": said["end"],
            }
            dunning_policy.checked(said["document"])
        except CallerError as refused:
            self.add_error(refused.field, refused.message)
        except ValueError:
            self.add_error(None, "Days are whole numbers, separated by commas.")
        return said


class OverrideForm(PolicyForm):
    """An organisation's own."""

    class Meta:
        model = DunningOverride
        fields = ()


class _Policies(ReadOnly):
    """What both kinds of policies share: a form to add and to change."""

    form = PolicyForm
    readonly_fields = ("changed_at", "changed_by")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request, obj)

    @shown.column(description="Policy")
    def in_words(self, row: Any) -> str:
        return _in_words(dunning_policy.checked(row.document))


@admin.register(DunningPolicy, site=site)
class InstallationPage(_Policies):
    """The installation's policy. Where there is none, the shipped one holds."""

    list_display = ("__str__", "in_words", "changed_at", "changed_by")
    list_before_template = "console/dunning_hint.html"
    fields = (*FIELDS, "changed_at", "changed_by")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_view_permission(request) and not DunningPolicy.objects.exists()

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """With what holds while there is none."""
        told = {**(extra_context or {}), "shipped": _in_words(dunning_policy.SHIPPED)}
        page: HttpResponse = super().changelist_view(request, told)
        return page

    def save_model(self, request: HttpRequest, row: Any, form: PolicyForm, change: bool) -> None:
        """By the verb."""
        document = form.cleaned_data["document"]
        dunning_policy.set_installation_policy(document, by=f"operator {request.user}")


@admin.register(DunningOverride, site=site)
class OverridePage(_Policies):
    """Policies of organisations that have their own."""

    form = OverrideForm
    list_display = ("tenant", "in_words", "changed_at", "changed_by")
    list_select_related = ("tenant",)
    search_fields = ("tenant__slug", "tenant__name")
    fields = ("tenant", *FIELDS, "changed_at", "changed_by")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        changed = ("changed_at", "changed_by")
        return changed if obj is None else ("tenant", *changed)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """An organisation whose own is deleted has the installation's."""
        return self.has_view_permission(request, obj)

    def save_model(self, request: HttpRequest, row: Any, form: PolicyForm, change: bool) -> None:
        """By the verb; one that is there already is replaced."""
        tenant_id = row.tenant_id
        with tenant_scope(tenant_id):
            dunning_policy.set_policy(form.cleaned_data["document"], by=f"operator {request.user}")
            row.pk = DunningOverride.objects.get().pk

    def delete_model(self, request: HttpRequest, row: Any) -> None:
        """By the verb."""
        with tenant_scope(row.tenant_id):
            dunning_policy.use_installation_policy()

    def delete_queryset(self, request: HttpRequest, rows: Any) -> None:
        """Each by the verb."""
        for row in rows:
            self.delete_model(request, row)


@admin.register(DunningCase, site=site)
class CasePage(ReadOnly):
    """Invoices that are overdue, or were: what stands where."""

    list_display = ("invoice", "tenant", "left", "overdue_at", "next_act", "closed_at")
    list_select_related = ("tenant", "invoice")
    list_filter = (("closed_at", admin.EmptyFieldListFilter), "tenant")
    search_fields = ("invoice__number", "tenant__slug", "tenant__name")
    fields = ("tenant", "invoice", "left", "overdue_at", "next_act", "looked_at", "closed_at")
    readonly_fields = ("left", "next_act")

    @shown.column(description="Left to pay")
    def left(self, row: DunningCase) -> str:
        with tenant_scope(row.tenant_id):
            return amounts.minor(left_minor(row.invoice), row.invoice.currency)

    @shown.column(description="What happens next")
    def next_act(self, row: DunningCase) -> str:
        with tenant_scope(row.tenant_id):
            found = owed_of(row.invoice_id)
        if found is None or found.next_at is None:
            return amounts.NOTHING
        return f"{found.next_at:%Y-%m-%d %H:%M}: {found.next_act}"


@admin.register(DunningStep, site=site)
class StepPage(ReadOnly):
    """Every act on an unpaid invoice, mails word for word."""

    list_display = ("invoice", "tenant", "step", "shown_state", "due_at", "done_at", "note")
    list_select_related = ("tenant", "invoice")
    list_filter = ("kind", "state", "tenant")
    search_fields = ("invoice__number", "tenant__slug")
    fields = (
        "tenant", "invoice", "step", "kind", "state", "due_at", "begun_at", "done_at", "tries",
        "told", "subject", "mail", "note",
    )  # fmt: skip
    readonly_fields = ("told", "mail")

    @shown.column(description="Told")
    def told(self, row: DunningStep) -> str:
        return ", ".join(row.recipients) or amounts.NOTHING

    @shown.column(description="Mail")
    def mail(self, row: DunningStep) -> str:
        return linebreaksbr(row.body) or amounts.NOTHING

    @shown.column(description="State", label=STEP_LABELS, ordering="state")
    def shown_state(self, row: DunningStep) -> tuple[str, str]:
        return row.state, DunningStep.State(row.state).label


def _numbers(text: str) -> list[int]:
    return [int(part) for part in (text or "").split(",") if part.strip()]


def _in_words(policy: dunning_policy.Policy) -> str:
    suspend = "never" if policy.suspend_day is None else policy.suspend_day
    ends = f" {policy.end_day}" if policy.end_day is not None else ""
    return (
        f"charge {_listed(policy.charge_days)} · mail {_listed(policy.mail_days)}"
        f" · suspend {suspend} · {policy.end.replace('_', ' ')}{ends}"
    )


def _listed(days: tuple[int, ...]) -> str:
    return ", ".join(str(day) for day in days) or "never"
