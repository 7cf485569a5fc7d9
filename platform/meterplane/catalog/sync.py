"""Bring the catalog in line with a catalog file. Models missing from the file stay as they are."""

from pathlib import Path
from typing import Literal

import msgspec
from django.db import transaction

from meterplane.catalog.models import Model
from meterplane.kernel.errors import CallerError


class CatalogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One model of a catalog file; `prices` are decimal strings per unit, read by billing."""

    name: str
    display_name: str
    upstream: str
    adapter: Literal["vllm", "embedding", "tensor"]
    context_tokens_max: int
    output_tokens_max: int
    output_tokens_default: int
    description: str = ""
    is_demo: bool = False
    is_active: bool = True


def read_catalog(path: Path) -> list[CatalogEntry]:
    """The entries of a catalog file, a JSON list or `{"models": [...]}`.

    Raises `CallerError` `catalog_invalid` naming the entry and field that are wrong.
    """
    try:
        document = msgspec.json.decode(path.read_bytes())
        models = document["models"] if isinstance(document, dict) else document
        return msgspec.convert(models, list[CatalogEntry])
    except (OSError, KeyError, msgspec.DecodeError) as problem:
        raise CallerError("catalog_invalid", f"{path}: {problem}") from None


@transaction.atomic
def sync_catalog(path: Path) -> int:
    """Create or update the models of the file, all or none; returns how many it names."""
    entries = read_catalog(path)
    for entry in entries:
        Model.objects.update_or_create(name=entry.name, defaults=msgspec.structs.asdict(entry))
    return len(entries)
