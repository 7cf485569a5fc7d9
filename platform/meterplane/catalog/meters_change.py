"""Make a meter, or another version of it from an instant on. Nothing else ever changes.

Guarantees: versions are numbered without a gap and begin one after another, whoever else makes one
meanwhile. No version begins in the past: what was counted until now stays as it was counted. The
same definition again is answered with the version there is.
"""

from datetime import datetime

import msgspec
from django.db import transaction

from meterplane.catalog.meters import BEGINNING, BUILT_IN, MeterDefinition, Version, versions_of
from meterplane.catalog.meters_check import check_definition, check_slug
from meterplane.catalog.models import Meter, MeterVersion
from meterplane.catalog.sync import lock_catalog
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError

METERS_MAX = 500
VERSIONS_MAX = 200  # of one meter


@transaction.atomic
def create_meter(slug: str, definition: MeterDefinition, *, by: str) -> Version:
    """Make a meter; its first version holds from the beginning.

    Raises `CallerError` `meter_invalid` naming the field, 409 `meter_exists`.
    """
    check_slug(slug)
    check_definition(definition)
    lock_catalog()
    if slug in BUILT_IN or Meter.objects.filter(slug=slug).exists():
        raise CallerError(
            "meter_exists",
            f"There is a meter {slug!r}; PUT another version of it.",
            status=409,
            field="slug",
        )
    if Meter.objects.count() >= METERS_MAX:
        raise CallerError("too_many_meters", f"There are {METERS_MAX} meters.", status=409)
    Meter.objects.create(slug=slug)
    _add(slug, 1, BEGINNING, definition, by)
    return versions_of(slug)[-1]


@transaction.atomic
def change_meter(
    slug: str, definition: MeterDefinition, *, effective_from: datetime | None, by: str
) -> Version:
    """Let another version hold from an instant on; None: from now.

    Raises `CallerError` 404; `meter_invalid` and `effective_from_past` naming the field; 409
    `meter_built_in`.
    """
    check_definition(definition)
    lock_catalog()
    newest = versions_of(slug)[-1]
    if slug in BUILT_IN:
        raise CallerError(
            "meter_built_in",
            f"{slug} is what price books are made for; it does not change. Make another meter.",
            status=409,
        )
    if newest.definition == definition:
        return newest
    now = clock.now()
    begins_at = effective_from or now
    if begins_at < now:
        raise CallerError(
            "effective_from_past",
            f"effective_from is {begins_at.isoformat()}, which is over; what was counted until now"
            " stays as it was counted.",
            field="effective_from",
        )
    if begins_at <= newest.effective_from:
        raise CallerError(
            "effective_from_taken",
            f"Version {newest.number} begins at {newest.effective_from.isoformat()}; another one"
            " begins later.",
            field="effective_from",
        )
    if newest.number >= VERSIONS_MAX:
        raise CallerError("too_many_versions", f"It has {VERSIONS_MAX} versions.", status=409)
    _add(slug, newest.number + 1, begins_at, definition, by)
    return versions_of(slug)[-1]


def _add(slug: str, number: int, begins_at: datetime, definition: MeterDefinition, by: str) -> None:
    MeterVersion.objects.create(
        meter_id=slug,
        number=number,
        effective_from=begins_at,
        definition=msgspec.to_builtins(definition),
        created_by=by,
    )
