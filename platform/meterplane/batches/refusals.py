"""What callers of files and batches are told when something cannot be."""

from meterplane.kernel.errors import CallerError


def no_such_file(text: str, *, field: str = "id") -> CallerError:
    """Missing, deleted, expired, or another project's: told alike."""
    return CallerError(
        "file_not_found", f"No such File object: {text[:80]}", status=404, field=field
    )


def no_such_batch(text: str) -> CallerError:
    """Missing, or another project's: told alike."""
    return CallerError(
        "batch_not_found", f"No batch found with id '{text[:80]}'.", status=404, field="batch_id"
    )


def too_large(bytes_max: int) -> CallerError:
    """A body over its bound."""
    return CallerError(
        "request_too_large", f"The request is larger than {bytes_max:,} bytes.", status=413
    )


def invalid(code: str, message: str, field: str | None = None) -> CallerError:
    """A request that must be sent differently."""
    return CallerError(code, message, status=400, field=field)
