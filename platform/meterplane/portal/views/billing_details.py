"""Who invoices are made out to, as owners, admins and those who do the billing say it."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods
from django_htmx.http import HttpResponseClientRedirect

from billing.invoicing.parties import details, set_details
from meterplane.kernel.errors import CallerError
from meterplane.portal.access import (
    Acting,
    member_action,
    render_dialog,
    require_billing_manager,
)
from meterplane.portal.billing_form import BillingDetailsForm, initial
from tenants.scoping import tenant_scope


@require_http_methods(["GET", "POST"])
@member_action
def change(request: HttpRequest, acting: Acting) -> HttpResponse:
    """Change them; what is refused is said at its field, and nothing is stored."""
    require_billing_manager(acting)
    with tenant_scope(acting.tenant_id):
        form = BillingDetailsForm(request.POST or None, initial=initial(details()))
        if request.method == "POST" and form.is_valid():
            try:
                set_details(**form.said())
            except CallerError as refused:
                form.refuse(refused)
            else:
                messages.success(request, "The next invoice is made out to this address")
                return _done(request)
    return render_dialog(
        request, acting, "billing", "Billing details", "portal/billing/buyer.html", {"form": form}
    )


def _done(request: HttpRequest) -> HttpResponse:
    if getattr(request, "htmx", False):
        return HttpResponseClientRedirect(reverse("portal:billing"))
    return redirect("portal:billing")
