"""What callers are told when something cannot be, and the shape the OpenAI clients read it in."""

from typing import Any

from meterplane.kernel.errors import CallerError, WorldError

# OpenAI's `type`, by status. Everything else of a caller's is `invalid_request_error`.
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def key_malformed() -> CallerError:
    """No key, or one that was mistyped."""
    return CallerError(
        "invalid_api_key",
        "The API key is missing or mistyped. Send it as 'Authorization: Bearer mp_live_...'.",
        status=401,
    )


def key_unknown() -> CallerError:
    """A key nobody issued, or one that was revoked or has expired."""
    return CallerError(
        "invalid_api_key",
        "This API key is not valid here: it may have been revoked or have expired. "
        "Create a new one in the portal under API keys.",
        status=401,
    )


def account_suspended(reason: str) -> CallerError:
    """The organisation may not infer, nor ask for it."""
    because = f" ({reason})" if reason else ""
    return CallerError(
        "account_suspended",
        f"This organisation is suspended{because}. An owner can settle it in the portal under "
        "Billing.",
        status=403,
    )


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


def body(failure: CallerError | WorldError) -> dict[str, Any]:
    """The JSON of a failure; all four fields are always there."""
    caller = isinstance(failure, CallerError)
    kind = _TYPES.get(failure.status, "invalid_request_error") if caller else "server_error"
    field = failure.field if isinstance(failure, CallerError) else None
    return {
        "error": {"message": failure.message, "type": kind, "param": field, "code": failure.code}
    }


def headers(failure: CallerError | WorldError) -> dict[str, str]:
    """What clients act upon besides the status."""
    found: dict[str, str] = {}
    if failure.retry_after_s is not None:
        found["Retry-After"] = str(max(1, failure.retry_after_s))
    if failure.status == 401:
        found["WWW-Authenticate"] = 'Bearer realm="meterplane"'
    if failure.status == 409:
        # The OpenAI clients retry a conflict on their own; ours never get better by waiting.
        found["x-should-retry"] = "false"
    return found
