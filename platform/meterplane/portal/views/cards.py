"""The card that is charged: typed in and managed at the payment provider, shown here."""

from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_GET, require_POST

from billing.payments.cards import (
    open_billing_portal,
    open_card_setup,
    refresh_card,
    settle_card_setup,
)
from billing.payments.provider import ProviderRefused
from billing.payments.stripe import provider
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.portal.access import Acting, member_action, require_billing_manager
from meterplane.portal.provider_pages import in_words, sent, to_billing

TOLD = {
    "chosen": "The card is added, and charged from now on",
    "wanted": "No card was added",
    "expired": "No card was added: the page had expired",
}


@require_POST
@member_action
def new(request: HttpRequest, acting: Acting) -> HttpResponse:
    """To the provider's page where a card is typed in."""
    require_billing_manager(acting)
    return sent(request, lambda at: open_card_setup(acting.tenant_id, at, by=acting.email))


@require_POST
@member_action
def manage(request: HttpRequest, acting: Acting) -> HttpResponse:
    """To the provider's page of cards, invoices and receipts."""
    require_billing_manager(acting)
    return sent(request, lambda at: open_billing_portal(acting.tenant_id, at))


@require_GET
@member_action
def back(request: HttpRequest, acting: Acting, setup_id: UUID) -> HttpResponse:
    """The customer is back, with a card or without: the provider says which."""
    require_billing_manager(acting)
    try:
        state = settle_card_setup(acting.tenant_id, setup_id, provider())
    except CallerError as missing:
        raise Http404 from missing
    except (ProviderRefused, WorldError) as failure:
        messages.error(request, in_words(failure))
    else:
        tell = messages.success if state == "chosen" else messages.error
        tell(request, TOLD[state])
    return to_billing(request)


@require_GET
@member_action
def checked(request: HttpRequest, acting: Acting) -> HttpResponse:
    """The customer is back from where the card may have been changed."""
    require_billing_manager(acting)
    try:
        changed = refresh_card(acting.tenant_id, provider())
    except (ProviderRefused, WorldError) as failure:
        messages.error(request, in_words(failure))
    else:
        if changed:
            messages.success(request, "The payment method was changed")
    return to_billing(request)
