"""Reads of the catalog. Needs no tenant's door."""

from django.db.models import QuerySet

from meterplane.catalog.entry import CatalogEntry, entry_of
from meterplane.catalog.models import Model


def active_models() -> "QuerySet[Model]":
    """Models on offer, by name."""
    return Model.objects.filter(is_active=True).order_by("name")


def catalog_entries() -> dict[str, CatalogEntry]:
    """Every model, on offer or not, by its name."""
    return {model.name: entry_of(model) for model in Model.objects.all()}
