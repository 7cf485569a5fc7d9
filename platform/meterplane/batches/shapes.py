"""Files and batches as the OpenAI clients read them. Instants are whole seconds since the epoch."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from meterplane.batches import identifiers
from meterplane.batches.models import Batch, StoredFile
from meterplane.kernel import clock


def _seconds(instant: datetime | None) -> int | None:
    return None if instant is None else clock.to_ms(instant) // 1000


def file(row: StoredFile) -> dict[str, Any]:
    """A `FileObject`."""
    return {
        "id": identifiers.shown(identifiers.FILE, row.id),
        "object": "file",
        "bytes": row.size_bytes,
        "created_at": _seconds(row.created_at),
        "expires_at": _seconds(row.expires_at),
        "filename": row.filename,
        "purpose": row.purpose,
        "status": "processed",
        "status_details": None,
    }


def batch(row: Batch) -> dict[str, Any]:
    """A `Batch`."""

    def ended(status: str) -> int | None:
        return _seconds(row.ended_at) if row.status == status else None

    validated = row.in_progress_at is not None
    return {
        "id": identifiers.shown(identifiers.BATCH, row.id),
        "object": "batch",
        "endpoint": row.endpoint,
        "model": row.model or None,
        "errors": {"object": "list", "data": row.errors} if row.errors else None,
        "input_file_id": identifiers.shown(identifiers.FILE, row.input_file_id),
        "completion_window": "24h",
        "status": Batch.Status.FINALIZING if row.status == Batch.Status.EXPIRING else row.status,
        "output_file_id": _file_id(row.output_file_id) if row.has_output else None,
        "error_file_id": _file_id(row.error_file_id) if row.has_errors else None,
        "created_at": _seconds(row.created_at),
        "in_progress_at": _seconds(row.in_progress_at),
        "expires_at": _seconds(row.expires_at),
        "finalizing_at": _seconds(row.finalizing_at),
        "completed_at": ended("completed"),
        "failed_at": ended("failed"),
        "expired_at": ended("expired"),
        "cancelling_at": _seconds(row.cancelling_at),
        "cancelled_at": ended("cancelled"),
        "request_counts": {
            "total": row.total,
            "completed": row.completed,
            "failed": row.failed,
        },
        "usage": _usage(row) if validated else None,
        "metadata": row.metadata,
    }


def _file_id(identifier: Any) -> str:
    return identifiers.shown(identifiers.FILE, identifier)


def _usage(row: Batch) -> dict[str, Any]:
    return {
        "input_tokens": row.tokens_in,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": row.tokens_out,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": row.tokens_in + row.tokens_out,
    }


def page(items: Sequence[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """One page of a list, with the cursors of its ends."""
    return {
        "object": "list",
        "data": list(items),
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": has_more,
    }
