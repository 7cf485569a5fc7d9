"""The page that publishes a draft: what the checks find, who would pay how much more, and a
confirmation of everything that has to be meant.

Guarantees: the checks, the differences and the act are those of the control API; what is published
here is in force for the gateways before the page answers.
"""

from typing import Any

from django import forms
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.widgets import UnfoldAdminSplitDateTimeWidget, UnfoldBooleanWidget

from billing.invoicing.preview import preview_version
from billing.pricing.checks import Confirmation, Finding
from billing.pricing.models import PriceBookVersion
from billing.pricing.publish import check_draft, publish
from billing.rating.preview import Delta
from meterplane.console.site import site
from meterplane.kernel import amounts
from meterplane.kernel.errors import CallerError
from meterplane.policy.compile import recompile_everyone

TENANTS_SHOWN = 50
HEADERS = ["Organisation", "Last month was", "Would be", "Difference"]
MEANT: dict[Confirmation, str] = {
    "gap": "Stop selling what has no price here",
    "below_cost": "Sell below what serving is measured to cost",
}


class PublishForm(forms.Form):
    """From when on, and that what the checks found is meant."""

    effective_at = forms.SplitDateTimeField(
        required=False,
        widget=UnfoldAdminSplitDateTimeWidget,
        label="In force from (UTC)",
        help_text="Empty: at once. Requests admitted from then on pay these prices; none before.",
    )

    def __init__(self, data: Any, found: list[Finding]) -> None:
        super().__init__(data)
        for name in dict.fromkeys(each.confirmed_by for each in found):
            if name is not None:
                self.fields[name] = forms.BooleanField(
                    label=MEANT[name],
                    widget=UnfoldBooleanWidget,
                    error_messages={"required": "Confirm this, or change the draft."},
                )

    @property
    def confirmed(self) -> list[str]:
        """The findings that are meant."""
        return [name for name in MEANT if self.cleaned_data.get(name)]


def publish_page(request: HttpRequest, version: PriceBookVersion) -> HttpResponse:
    """Shows what publishing would do, and does it once it is confirmed."""
    its_page = reverse("console:pricing_pricebookversion_change", args=[version.pk])
    try:
        found = check_draft(version.id)
        deltas = preview_version(version.id)
    except CallerError as refused:
        messages.error(request, refused.message)
        return HttpResponseRedirect(its_page)
    form = PublishForm(request.POST if request.method == "POST" else None, found)
    if request.method == "POST" and form.is_valid() and _publish(request, version, form):
        return HttpResponseRedirect(its_page)
    rows = [_cells(delta) for delta in deltas[:TENANTS_SHOWN]]
    context = {
        **site.each_context(request),
        "title": f"Publish {version.book} v{version.number}",
        "found": found,
        "is_stopped": any(each.confirmed_by is None for each in found),
        "deltas": {"headers": HEADERS, "rows": rows} if rows else None,
        "shown": len(rows),
        "concerned": len(deltas),
        "form": form,
        "back_url": its_page,
    }
    return TemplateResponse(request, "console/publish.html", context)


def _publish(request: HttpRequest, version: PriceBookVersion, form: PublishForm) -> bool:
    """False where it was refused; the form says why."""
    try:
        with transaction.atomic():
            publish(
                version.id,
                effective_at=form.cleaned_data["effective_at"],
                confirm=form.confirmed,
            )
    except CallerError as refused:
        form.add_error(refused.field if refused.field in form.fields else None, refused.message)
        return False
    recompile_everyone()
    meant = f", confirmed: {', '.join(form.confirmed)}" if form.confirmed else ""
    site.get_model_admin(PriceBookVersion).note(request, version, f"published{meant}")
    messages.success(request, f"v{version.number} is published")
    return True


def _cells(delta: Delta) -> list[str]:
    if delta.problem:
        return [delta.tenant, delta.problem, amounts.NOTHING, amounts.NOTHING]
    old, new, more = (
        amounts.minor(minor or 0, delta.currency)
        for minor in (delta.old_minor, delta.new_minor, delta.difference_minor)
    )
    return [delta.tenant, old, new, f"+{more}" if delta.difference_minor > 0 else more]
