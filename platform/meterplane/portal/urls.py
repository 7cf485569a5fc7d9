"""The portal's addresses. Sign-in is allauth's, under /accounts/."""

from django.urls import path

from meterplane.portal.views import billing, keys, overview, request, switch, usage

app_name = "portal"
urlpatterns = [
    path("", overview.overview, name="overview"),
    path("usage/", usage.usage, name="usage"),
    path("requests/<uuid:request_id>/", request.request_detail, name="request"),
    path("keys/", keys.keys, name="keys"),
    path("keys/new/", keys.new, name="key-new"),
    path("keys/<uuid:key_id>/revoke/", keys.revoke, name="key-revoke"),
    path("billing/", billing.billing, name="billing"),
    path("billing/<uuid:invoice_id>/", billing.invoice, name="invoice"),
    path("switch/", switch.switch, name="switch"),
]
