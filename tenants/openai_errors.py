"""Failures in the shape the OpenAI clients read them in: what `/v1` answers here."""

from typing import Any

from meterplane.kernel.errors import CallerError, WorldError

# OpenAI's `type`, by status. Everything else of a caller's is `invalid_request_error`.
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


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
