"""When credit buys itself, as owners, admins and those who do the billing say it."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_http_methods, require_POST

from billing.payments import money_in
from billing.payments.auto_reload import resume_auto_reload, set_auto_reload
from meterplane.kernel.errors import CallerError
from meterplane.portal.access import Acting, member_action, render_dialog, require_billing_manager
from meterplane.portal.money_in_forms import AutoReloadForm
from meterplane.portal.provider_pages import to_billing
from tenants.scoping import tenant_scope


@require_http_methods(["GET", "POST"])
@member_action
def change(request: HttpRequest, acting: Acting) -> HttpResponse:
    """Change the rules; what is refused is said at its field, and nothing is stored."""
    require_billing_manager(acting)
    with tenant_scope(acting.tenant_id):
        form = AutoReloadForm(request.POST or None, rules=money_in.auto_reload())
        if request.method == "POST" and form.is_valid():
            try:
                rules = set_auto_reload(acting.tenant_id, form.said(), by=acting.email)
            except CallerError as refused:
                form.refuse(refused)
            else:
                messages.success(request, f"Auto-reload is {rules}")
                return to_billing(request)
    context = {"form": form}
    return render_dialog(
        request, acting, "billing", "Auto-reload", "portal/billing/auto_reload.html", context
    )


@require_POST
@member_action
def resume(request: HttpRequest, acting: Acting) -> HttpResponse:
    """Try again after a charge that came to nothing."""
    require_billing_manager(acting)
    try:
        resume_auto_reload(acting.tenant_id, by=acting.email)
    except CallerError as refused:
        messages.error(request, refused.message)
    else:
        messages.success(request, "Auto-reload goes on")
    return to_billing(request)
