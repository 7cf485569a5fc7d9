"""Every error the gateway answers with, and the shape each surface wants it in.

`/v1` answers `{"error": {message, type, param, code}}`, as the OpenAI clients read it; everything
else `{"error": "text"}`, as `tritonclient` does and breaks on anything else.
"""

import msgspec

from meterplane.kernel.errors import CallerError, WorldError

# OpenAI's `type`, by status.
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
}

Headers = list[tuple[bytes, bytes]]


def key_malformed() -> CallerError:
    return CallerError(
        "invalid_api_key",
        "The API key is missing or mistyped. Send it as 'Authorization: Bearer mp_live_...'.",
        status=401,
    )


def key_unknown() -> CallerError:
    return CallerError(
        "invalid_api_key",
        "This API key is not valid here: it may have been revoked or have expired. "
        "Create a new one in the portal under API keys.",
        status=401,
    )


def account_suspended(reason: str) -> CallerError:
    because = f" ({reason})" if reason else ""
    return CallerError(
        "account_suspended",
        f"This organisation is suspended{because}. An owner can settle it in the portal under "
        "Billing.",
        status=403,
    )


def model_not_found(model: str) -> CallerError:
    return CallerError(
        "model_not_found",
        f"The model {model[:80]!r} does not exist or this key may not use it. "
        "GET /v1/models lists what it may.",
        status=404,
        field="model",
    )


def budget_exceeded(scope: str) -> CallerError:
    return CallerError(
        "insufficient_quota",
        f"The monthly budget of this {scope} does not cover this request. "
        "Raise it in the portal, or ask for fewer tokens.",
        status=402,
    )


def rate_limited(retry_after_s: int) -> CallerError:
    return CallerError(
        "rate_limit_exceeded",
        f"Too many requests for this key. Try again in {retry_after_s} s.",
        status=429,
        retry_after_s=retry_after_s,
    )


def render(failure: CallerError | WorldError, surface: str) -> tuple[int, Headers, bytes]:
    """Status, headers and body of a failure in the shape of `surface` (`openai` or `kserve`)."""
    headers: Headers = [(b"content-type", b"application/json")]
    if failure.retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, failure.retry_after_s)).encode()))
    if failure.status == 402:
        # The OpenAI clients retry some refusals on their own; this one never gets better.
        headers.append((b"x-should-retry", b"false"))
    if failure.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="meterplane"'))
    if surface == "openai":
        body = {
            "error": {
                "message": failure.message,
                "type": _TYPES.get(failure.status, "server_error"),
                "param": failure.field if isinstance(failure, CallerError) else None,
                "code": failure.code,
            }
        }
        return failure.status, headers, msgspec.json.encode(body)
    return failure.status, headers, msgspec.json.encode({"error": failure.message})
