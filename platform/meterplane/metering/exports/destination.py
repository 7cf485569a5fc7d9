"""Where exports are sent, and what is: kept by operators, checked before it is stored."""

import re
from datetime import UTC, datetime
from typing import Any

from meterplane.kernel.errors import CallerError
from meterplane.metering.exports.bucket import Bucket, check_endpoint
from meterplane.metering.exports.periods import floor, next_start
from meterplane.metering.exports.query import ExportQuery, checked
from meterplane.metering.exports.sealing import seal
from meterplane.metering.models import ExportDestination, ExportSchedule

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()/-]{0,200}")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


def save_destination(row: ExportDestination, secret: str) -> None:
    """Store a destination. An empty `secret` leaves the one there is, or `secret_env`.

    Needs the system's door. Raises `CallerError` that names the field.
    """
    check_endpoint(row.endpoint)
    row.endpoint, row.prefix = row.endpoint.rstrip("/"), row.prefix.strip("/")
    if not _BUCKET.fullmatch(row.bucket):
        raise CallerError(
            "bucket_invalid",
            "A bucket's name is 3 to 63 lower-case letters, digits, dots and hyphens.",
            field="bucket",
        )
    if not _PREFIX.fullmatch(row.prefix) or ".." in row.prefix or "//" in row.prefix:
        raise CallerError(
            "prefix_invalid", "A prefix is folders, as exports/meterplane.", field="prefix"
        )
    if secret and row.secret_env:
        raise CallerError(
            "secret_twice", "Give the secret, or the name of a variable, not both.", field="secret"
        )
    if row.secret_env:
        if not _VARIABLE.fullmatch(row.secret_env):
            raise CallerError(
                "variable_invalid", "Name a variable, as EXPORT_S3_SECRET.", field="secret_env"
            )
        row.secret_sealed = ""
    elif secret:
        row.secret_sealed = seal(secret)
    elif not row.secret_sealed:
        raise CallerError("secret_missing", "Give the secret of the access key.", field="secret")
    row.save()


def test_connection(row: ExportDestination) -> None:
    """Write, read and delete a small object. Raises `WorldError` with a sentence."""
    Bucket(row).probe()


def save_schedule(row: ExportSchedule) -> None:
    """Store a schedule; its first period is the one that `next_period` is in.

    Needs the system's door. Raises `CallerError` that names the field.
    """
    if not _NAME.fullmatch(row.name):
        raise CallerError(
            "name_invalid",
            "A name is part of object keys: lower-case letters, digits and hyphens.",
            field="name",
        )
    others = ExportSchedule.objects.filter(destination_id=row.destination_id, name=row.name)
    if others.exclude(id=row.id).exists():
        raise CallerError(
            "name_taken",
            "Another schedule sends to the same keys; name it otherwise.",
            field="name",
        )
    row.next_period = floor(row.every, row.next_period)
    query_of(row, row.next_period)
    row.save()


def query_of(row: ExportSchedule, start: datetime) -> ExportQuery:
    """What is exported of the period that begins at `start`. Raises `CallerError`."""
    end = next_start(row.every, start)
    params: dict[str, Any] = {
        name: value if isinstance(value, list) else [value] for name, value in row.filters.items()
    }
    if {"from", "to", "last", "tz"} & params.keys() or not all(
        isinstance(each, str) for values in params.values() for each in values
    ):
        raise CallerError(
            "filters_invalid",
            "Filters are texts or lists of texts, and say nothing of the period, which is UTC's.",
            field="filters",
        )
    period = {name: [at.astimezone(UTC).isoformat()] for name, at in (("from", start), ("to", end))}
    return checked(row.kind, row.format, params | period)
