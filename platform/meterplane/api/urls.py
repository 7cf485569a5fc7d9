"""Routes of the control API."""

from django.urls import path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from meterplane.api import views
from meterplane.api.leaked_keys import LeakedKeys

app_name = "api"

urlpatterns = [
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("docs/", SpectacularSwaggerSplitView.as_view(url_name="api:schema"), name="docs"),
    path("v1/organisations", views.Organisations.as_view(), name="organisations"),
    path("v1/organisations/<slug:slug>", views.OrganisationDetail.as_view(), name="organisation"),
    path("v1/organisations/<slug:slug>/keys", views.Keys.as_view(), name="keys"),
    path("v1/organisations/<slug:slug>/keys/<uuid:key_id>", views.KeyDetail.as_view(), name="key"),
    path(
        "v1/organisations/<slug:slug>/keys/<uuid:key_id>/rotate",
        views.KeyRotation.as_view(),
        name="key_rotation",
    ),
    path("v1/leaked-keys", LeakedKeys.as_view(), name="leaked_keys"),
    path("v1/organisations/<slug:slug>/usage", views.Usage.as_view(), name="usage"),
    path(
        "v1/organisations/<slug:slug>/usage/by/<str:group>",
        views.UsageBy.as_view(),
        name="usage_by",
    ),
    path(
        "v1/models/<str:name>/reservations",
        views.ModelReservations.as_view(),
        name="model_reservations",
    ),
    path("v1/organisations/<slug:slug>/invoices", views.Invoices.as_view(), name="invoices"),
]
