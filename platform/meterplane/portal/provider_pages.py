"""Sending a customer to the payment provider's pages, and telling what could not be done."""

from collections.abc import Callable

from csp.decorators import csp_update
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django_htmx.http import HttpResponseClientRedirect

from billing.payments.provider import PaymentProvider, ProviderNotConfigured, ProviderRefused
from billing.payments.stripe import provider
from meterplane.kernel.errors import CallerError, WorldError

# For the pages whose forms do so: browsers follow no form to where its page does not say.
leads_to_provider = csp_update({"form-action": settings.PAYMENT_PAGES})
AWAY = "The payment provider does not answer. Nothing was charged by this; try again in a moment."
NOT_SET_UP = "Payments are not set up here yet. An operator has to do that."


def sent(request: HttpRequest, where: Callable[[PaymentProvider], str]) -> HttpResponse:
    """To the address `where` gives, or back to the billing page with the reason."""
    try:
        return leading_to(request, where(provider()))
    except (CallerError, ProviderRefused, WorldError) as failure:
        messages.error(request, in_words(failure))
        return to_billing(request)


def in_words(failure: CallerError | ProviderRefused | WorldError) -> str:
    """For the customer; what the provider says of our key is not for them."""
    if isinstance(failure, ProviderNotConfigured):
        return NOT_SET_UP
    return AWAY if isinstance(failure, WorldError) else failure.message


def to_billing(request: HttpRequest) -> HttpResponse:
    return leading_to(request, reverse("portal:billing"))


def leading_to(request: HttpRequest, url: str) -> HttpResponse:
    """Elsewhere, from a page or from its dialog."""
    if getattr(request, "htmx", False):
        return HttpResponseClientRedirect(url)
    return redirect(url)
