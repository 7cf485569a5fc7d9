"""Start a batch: what is asked for, checked field by field, then a row for a worker to find."""

from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from django.db import transaction

from meterplane.batches import doorbell, identifiers, queries, refusals
from meterplane.batches.limits import (
    FILE_LIFE,
    FILE_LIFE_S_MAX,
    FILE_LIFE_S_MIN,
    METADATA_KEY_CHARS_MAX,
    METADATA_PAIRS_MAX,
    METADATA_VALUE_CHARS_MAX,
    OPEN_BATCHES_MAX,
    WINDOW,
)
from meterplane.batches.models import Batch, StoredFile
from meterplane.batches.text import is_storable
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError
from tenants.callers import Caller
from tenants.models import Organisation
from tenants.scoping import tenant_scope

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
FIELDS = (
    "input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wanted:
    """A batch as asked for, checked as far as can be without reading the file."""

    input_file_id: str
    endpoint: str
    metadata: dict[str, str] | None
    output_life: timedelta


def wanted(body: object) -> Wanted:
    """What a request's JSON asks for. Raises `CallerError` 400 naming the field."""
    if not isinstance(body, dict):
        raise refusals.invalid("invalid_json", "The body must be a JSON object.")
    for name in body:
        if name not in FIELDS:
            raise refusals.invalid(
                "unknown_parameter", f"Unknown parameter: {name[:80]!r}.", name[:80]
            )
    for name in FIELDS[:3]:
        if not isinstance(body.get(name), str):
            what = "must be a string" if name in body else "is missing"
            raise refusals.invalid("missing_required_parameter", f"{name!r} {what}.", name)
    if body["endpoint"] not in ENDPOINTS:
        raise refusals.invalid(
            "invalid_endpoint",
            f"{body['endpoint'][:80]!r} is not offered in batches; use one of "
            f"{', '.join(ENDPOINTS)}.",
            "endpoint",
        )
    if body["completion_window"] != "24h":
        raise refusals.invalid(
            "invalid_completion_window", "completion_window must be '24h'.", "completion_window"
        )
    return Wanted(
        body["input_file_id"],
        body["endpoint"],
        _metadata(body.get("metadata")),
        _output_life(body.get("output_expires_after")),
    )


def _metadata(given: object) -> dict[str, str] | None:
    if given is None:
        return None
    fits = (
        isinstance(given, dict)
        and len(given) <= METADATA_PAIRS_MAX
        and all(
            isinstance(value, str)
            and 0 < len(name) <= METADATA_KEY_CHARS_MAX
            and len(value) <= METADATA_VALUE_CHARS_MAX
            and is_storable(name)
            and is_storable(value)
            for name, value in given.items()
        )
    )
    if not fits or not isinstance(given, dict):
        raise refusals.invalid(
            "invalid_metadata",
            f"metadata must be an object of at most {METADATA_PAIRS_MAX} pairs, names of 1 to "
            f"{METADATA_KEY_CHARS_MAX} characters and strings of at most "
            f"{METADATA_VALUE_CHARS_MAX}.",
            "metadata",
        )
    return given


def _output_life(given: object) -> timedelta:
    if given is None:
        return FILE_LIFE
    if not isinstance(given, dict) or given.keys() != {"anchor", "seconds"}:
        raise refusals.invalid(
            "invalid_expiry",
            "output_expires_after must be {'anchor': 'created_at', 'seconds': ...}.",
            "output_expires_after",
        )
    return life(given["anchor"], given["seconds"], "output_expires_after")


def life(anchor: object, seconds: object, field: str) -> timedelta:
    """How long a file is kept. Raises `CallerError` `invalid_expiry`."""
    whole = isinstance(seconds, int) and not isinstance(seconds, bool)
    if anchor != "created_at" or not whole or not isinstance(seconds, int):
        raise refusals.invalid(
            "invalid_expiry",
            f"{field} needs anchor 'created_at' and seconds as a whole number.",
            field,
        )
    if not FILE_LIFE_S_MIN <= seconds <= FILE_LIFE_S_MAX:
        raise refusals.invalid(
            "invalid_expiry",
            f"{field}: seconds must be between {FILE_LIFE_S_MIN} and {FILE_LIFE_S_MAX}.",
            field,
        )
    return timedelta(seconds=seconds)


def create_batch(caller: Caller, batch: Wanted) -> Batch:
    """Start a batch; a worker validates its file next.

    Raises `CallerError` `file_not_found`, `invalid_purpose`, `too_many_batches`.
    """
    now = clock.now()
    with tenant_scope(caller.tenant_id):
        # Locked: between this look and the batch's row the file must not be deleted.
        file_id = identifiers.parse(identifiers.FILE, batch.input_file_id)
        source = queries.file_of(caller, file_id, lock=True)
        if source is None:
            raise refusals.no_such_file(batch.input_file_id, field="input_file_id")
        if source.purpose != StoredFile.Purpose.BATCH:
            raise refusals.invalid(
                "invalid_purpose",
                f"{batch.input_file_id} has the purpose {source.purpose!r}; a batch reads files of "
                "the purpose 'batch'.",
                "input_file_id",
            )
        Organisation.objects.select_for_update(no_key=True).get(id=caller.tenant_id)
        if Batch.objects.filter(status__in=Batch.OPEN).count() >= OPEN_BATCHES_MAX:
            raise CallerError(
                "too_many_batches",
                f"{OPEN_BATCHES_MAX} batches of this organisation have not ended. Wait for one.",
                status=429,
                retry_after_s=60,
            )
        made: Batch = Batch.objects.create(
            tenant_id=caller.tenant_id,
            project_id=caller.project_id,
            key_id=caller.key_id,
            endpoint=batch.endpoint,
            input_file_id=source.id,
            output_life_s=int(batch.output_life.total_seconds()),
            metadata=batch.metadata,
            created_at=now,
            expires_at=now + WINDOW,
            worked_at=now,
        )
        transaction.on_commit(partial(doorbell.ring, caller.tenant_id, made.id))
    return made
