"""Reads of the catalog. Needs no tenant's door."""

from django.db.models import QuerySet

from meterplane.catalog.models import Model


def active_models() -> "QuerySet[Model]":
    """Models on offer, by name."""
    return Model.objects.filter(is_active=True).order_by("name")
