"""Bring meters in line with a catalog file's `meters`. Those it does not name stay as they are.

Guarantees: all of the file hold or none. A meter that is new is made; one that the file says
otherwise gets another version, from now on; the rest stay, however often the file is read.
"""

from pathlib import Path
from typing import Any

import msgspec
from django.db import transaction

from meterplane.catalog.meters_change import change_meter, create_meter
from meterplane.catalog.meters_check import read_definition
from meterplane.catalog.models import Meter
from meterplane.catalog.sync import lock_catalog
from meterplane.kernel.errors import CallerError


@transaction.atomic
def sync_meters(path: Path) -> int:
    """Make or change the file's meters; returns how many it names.

    Raises `CallerError` `catalog_invalid` with the meter that is wrong and how.
    """
    try:
        document = msgspec.json.decode(path.read_bytes())
    except (OSError, ValueError) as problem:
        raise _invalid(path, str(problem)) from None
    listed = document.get("meters", []) if isinstance(document, dict) else []
    if not isinstance(listed, list):
        raise _invalid(path, "meters is no list")
    lock_catalog()
    for number, each in enumerate(listed):
        if not isinstance(each, dict) or not isinstance(each.get("slug"), str):
            raise _invalid(path, f"meters[{number}] needs a slug")
        try:
            _sync(each, by=f"catalog file {path.name}")
        except CallerError as wrong:
            raise _invalid(path, f"meter {each['slug']!r}: {wrong.message}", wrong.field) from None
    return len(listed)


def _sync(said: dict[str, Any], *, by: str) -> None:
    slug = said["slug"]
    definition = read_definition({name: each for name, each in said.items() if name != "slug"})
    if Meter.objects.filter(slug=slug).exists():
        change_meter(slug, definition, effective_from=None, by=by[:120])
    else:
        create_meter(slug, definition, by=by[:120])


def _invalid(path: Path, problem: str, field: str | None = None) -> CallerError:
    return CallerError("catalog_invalid", f"{path}: {problem}", field=field)
