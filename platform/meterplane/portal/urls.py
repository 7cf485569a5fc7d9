"""The portal's addresses, named `portal:...`, and allauth's sign-in under /accounts/."""

from django.urls import include, path

from meterplane.portal.views import billing, keys, limits, overview, request, switch, usage

pages = [
    path("", overview.overview, name="overview"),
    path("usage/", usage.usage, name="usage"),
    path("requests/<uuid:request_id>/", request.request_detail, name="request"),
    path("keys/", keys.keys, name="keys"),
    path("keys/new/", keys.new, name="key-new"),
    path("keys/<uuid:key_id>/revoke/", keys.revoke, name="key-revoke"),
    path("keys/<uuid:key_id>/rotate/", keys.rotate, name="key-rotate"),
    path("keys/leaks/<uuid:report_id>/dismiss/", keys.dismiss, name="leak-dismiss"),
    path("limits/", limits.limits, name="limits"),
    path("billing/", billing.billing, name="billing"),
    path("billing/<uuid:invoice_id>/", billing.invoice, name="invoice"),
    path("switch/", switch.switch, name="switch"),
]
urlpatterns = [
    path("accounts/", include("allauth.urls")),
    path("", include((pages, "portal"))),
]
