"""Reads of the catalog. Needs no tenant's door."""

from django.db.models import QuerySet

from meterplane.catalog.entry import CatalogEntry, entry_of
from meterplane.catalog.models import Model, OverHold


def active_models() -> "QuerySet[Model]":
    """Models on offer, by name."""
    return Model.objects.filter(is_active=True).order_by("name")


def over_holds(model: Model) -> list[OverHold]:
    """What the model's requests held and cost, by currency; empty before there were any."""
    return list(model.over_holds.all())


def catalog_entries() -> dict[str, CatalogEntry]:
    """Every model, on offer or not, by its name."""
    return {model.name: entry_of(model) for model in Model.objects.all()}
