"""Bring the catalog in line with a catalog file. Models missing from the file stay as they are.

Guarantees: all models of the file are stored or none, and what is stored has no fault. The file
decides about the models it names: a field it leaves out takes its default.
"""

from pathlib import Path

import msgspec
from django.db import connection, transaction

from meterplane.catalog.check import faults_of
from meterplane.catalog.entry import STORED, CatalogEntry, columns
from meterplane.catalog.models import Model
from meterplane.catalog.queries import catalog_entries
from meterplane.kernel.errors import CallerError

FAULTS_SHOWN_MAX = 5  # of one file, in one message


def read_catalog(path: Path) -> list[CatalogEntry]:
    """The entries of a catalog file, a JSON list or `{"models": [...]}`.

    Raises `CallerError` `catalog_invalid` naming the entry and field that are wrong.
    """
    try:
        document = msgspec.json.decode(path.read_bytes())
    except (OSError, ValueError) as problem:  # a file that is not UTF-8 is a ValueError
        raise _invalid(path, str(problem)) from None
    models = document.get("models") if isinstance(document, dict) else document
    if not isinstance(models, list):
        raise _invalid(path, 'holds no models; write {"models": [...]} or a list')
    entries = [_entry(path, number, model) for number, model in enumerate(models)]
    names = [entry.name for entry in entries]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise _invalid(path, f"model {name!r} is there twice; take one out")
    return entries


@transaction.atomic
def sync_catalog(path: Path) -> int:
    """Create or update the models of the file, all or none; returns how many it names.

    Raises `CallerError` `catalog_invalid` with what is wrong in the file.
    """
    entries = read_catalog(path)
    lock_catalog()
    catalog = catalog_entries() | {entry.name: entry for entry in entries}
    faults = [fault for entry in entries for fault in faults_of(entry, catalog)]
    if faults:
        shown = "; ".join(str(fault) for fault in faults[:FAULTS_SHOWN_MAX])
        more = len(faults) - FAULTS_SHOWN_MAX
        raise _invalid(path, f"{shown}; and {more} more" if more > 0 else shown, faults[0].field)
    Model.objects.bulk_create(
        [Model(**columns(entry)) for entry in entries],
        update_conflicts=True,
        unique_fields=["name"],
        update_fields=[name for name in STORED if name != "name"],
    )
    return len(entries)


def lock_catalog() -> None:
    """Let nobody else change a model until this transaction ends.

    Two changes, each without a fault, could together make a circle of fallbacks.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('catalog.change', 0))")


def _entry(path: Path, number: int, model: object) -> CatalogEntry:
    try:
        return msgspec.convert(model, CatalogEntry)
    except msgspec.ValidationError as problem:
        name = model.get("name") if isinstance(model, dict) else None
        which = f"model {name!r}" if isinstance(name, str) else f"models[{number}]"
        raise _invalid(path, f"{which}: {in_words(problem)}") from None


def in_words(problem: msgspec.ValidationError) -> str:
    """msgspec's sentence, with the place in it named as people write it."""
    text, found, place = str(problem).partition(" - at `$")
    return f"{place.strip('.`')}: {text}" if found else text


def _invalid(path: Path, problem: str, field: str | None = None) -> CallerError:
    return CallerError("catalog_invalid", f"{path}: {problem}", field=field)
