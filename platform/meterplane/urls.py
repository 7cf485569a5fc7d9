"""Routes of the control plane: portal, control API, batches, console, Stripe's webhooks."""

from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from billing.payments.webhooks import stripe_webhook
from meterplane.api.tenant_views import public_keys
from meterplane.console.site import site as console


def healthz(request: HttpRequest) -> HttpResponse:
    """This process answers. Says nothing of the servers behind it."""
    return HttpResponse("ok\n", content_type="text/plain")


urlpatterns = [
    path("healthz", healthz, name="healthz"),
    path("api/", include("meterplane.api.urls")),
    path("v1/", include("meterplane.api.tenant_urls")),  # before the rest, which ends in a 404
    path("v1/", include("meterplane.batches.urls")),
    path(".well-known/jwks.json", public_keys, name="jwks"),
    path("webhooks/stripe", stripe_webhook, name="stripe-webhook"),
    path("console/", console.urls),
    path("", include("meterplane.portal.urls")),
]
