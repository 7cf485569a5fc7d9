"""Credit bought ahead: an amount is named here, and paid at the payment provider."""

from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from billing.payments.models import TopUp
from billing.payments.provider import ProviderRefused
from billing.payments.stripe import provider
from billing.payments.top_ups import buy_credit, checkout_url, settle_top_up
from meterplane.kernel import amounts
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.portal.access import Acting, member_action, render_dialog, require_billing_manager
from meterplane.portal.money_in_forms import TopUpForm
from meterplane.portal.provider_pages import (
    in_words,
    leading_to,
    leads_to_provider,
    sent,
    to_billing,
)
from tenants.queries import organisation
from tenants.scoping import tenant_scope

State = TopUp.State


@require_http_methods(["GET", "POST"])
@leads_to_provider
@member_action
def new(request: HttpRequest, acting: Acting) -> HttpResponse:
    """The amount; then to the provider's page, or the reason at its field."""
    require_billing_manager(acting)
    with tenant_scope(acting.tenant_id):
        currency = organisation().currency
    form = TopUpForm(request.POST or None, currency=currency)
    if request.method == "POST" and form.is_valid():
        given = form.cleaned_data
        try:
            at = provider()
            top_up = buy_credit(
                acting.tenant_id,
                given["amount"],
                at,
                idempotency_key=f"portal:{given['press']}",
                by=acting.email,
            )
            url = checkout_url(top_up, at)
        except CallerError as refused:
            form.refuse(refused)
        except (ProviderRefused, WorldError) as failure:
            form.add_error(None, in_words(failure))
        else:
            if url:
                return leading_to(request, url)
            _tell(request, settle_top_up(acting.tenant_id, top_up.id, at))
            return to_billing(request)
    context = {"form": form}
    return render_dialog(
        request, acting, "billing", "Add credit", "portal/billing/top_up_new.html", context
    )


@require_POST
@member_action
def pay(request: HttpRequest, acting: Acting, top_up_id: UUID) -> HttpResponse:
    """Back to a checkout that was left."""
    require_billing_manager(acting)
    with tenant_scope(acting.tenant_id):
        top_up = TopUp.objects.filter(id=top_up_id).first()
    if top_up is None:
        raise Http404
    return sent(
        request,
        lambda at: (
            (checkout_url(top_up, at) if top_up.payment_id else "")
            or f"/billing/top-ups/{top_up_id}/"
        ),
    )


@require_GET
@member_action
def back(request: HttpRequest, acting: Acting, top_up_id: UUID) -> HttpResponse:
    """The customer is back, having paid or not: the provider says which."""
    require_billing_manager(acting)
    try:
        _tell(request, settle_top_up(acting.tenant_id, top_up_id, provider()))
    except CallerError as missing:
        raise Http404 from missing
    except (ProviderRefused, WorldError) as failure:
        messages.error(request, in_words(failure))
    return to_billing(request)


def _tell(request: HttpRequest, top_up: TopUp) -> None:
    amount = amounts.minor(top_up.amount_minor, top_up.currency)
    if top_up.state == State.PAID:
        messages.success(request, f"{amount} of credit is added")
        return
    told = {
        State.WANTED: f"{amount} of credit is not paid yet, and nothing was charged",
        State.EXPIRED: f"{amount} of credit was not paid in time, and nothing was charged",
        State.FAILED: f"{amount} of credit could not be charged. {top_up.note}",
        State.PARKED: f"What was paid differs from {amount}: we are looking into it",
    }
    messages.error(request, told[State(top_up.state)])
