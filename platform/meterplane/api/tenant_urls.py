"""What a tenant reads of itself, below `/v1/`."""

from django.urls import path

from meterplane.api import tenant_views

app_name = "tenant"

urlpatterns = [
    path("usage", tenant_views.usage, name="usage"),
    path("requests", tenant_views.requests, name="requests"),
    path("requests/<str:request_id>", tenant_views.request_detail, name="request"),
    path("receipts/<str:request_id>", tenant_views.receipt, name="receipt"),
]
