"""Every error the gateway answers with, and the shape each surface wants it in.

`/v1` answers `{"error": {message, type, param, code}}`, as the OpenAI clients read it; everything
else `{"error": "text"}`, as `tritonclient` does and breaks on anything else.
"""

from uuid import UUID

import msgspec

from meterplane.contracts.policy import ModelPolicy
from meterplane.gateway.limit_headers import refusal_headers
from meterplane.gateway.limit_refusals import LimitReached
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


def key_revoked() -> CallerError:
    return CallerError(
        "key_revoked",
        "This API key was revoked while the request ran, so it was ended. What was made until then "
        "is billed. Create a new key in the portal under API keys.",
        status=401,
    )


def key_expired() -> CallerError:
    return CallerError(
        "key_expired",
        "This API key expired while the request ran, so it was ended. What was made until then "
        "is billed. Create a new key in the portal under API keys.",
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


def surface_not_allowed(surface: str) -> CallerError:
    return CallerError(
        "surface_not_allowed",
        f"This key may not be used for {surface}. Use another key, or allow it in the portal under "
        "Limits.",
        status=403,
    )


def request_too_large(tokens_in: int, tokens_max: int) -> CallerError:
    return CallerError(
        "request_too_large",
        f"One request of this key may have {tokens_max:,} tokens, input and output together. This"
        f" input may come to {tokens_in:,}; shorten it.",
    )


def request_bound_too_large(tokens_in: int, tokens_out: int, tokens_max: int) -> CallerError:
    return CallerError(
        "request_too_large",
        f"One request of this key may have {tokens_max:,} tokens, input and output together. This"
        f" one may come to {tokens_in:,} and asks for up to {tokens_out:,}; ask for at most"
        f" {tokens_max - tokens_in:,} in all.",
        field="max_tokens",
    )


def address_not_allowed() -> CallerError:
    return CallerError(
        "address_not_allowed",
        "This key may not be used from this network address. Allow the address in the portal under "
        "Limits.",
        status=403,
    )


def wrong_surface(model: ModelPolicy) -> CallerError:
    return CallerError(
        "wrong_surface",
        f"The model {model.name!r} is not served here. {_WHERE[model.adapter]}",
        field="model",
    )


_TEXT = "Use POST /v1/chat/completions, /v1/completions or /v2/models/{model}/generate."
_WHERE = {
    "vllm": _TEXT,
    "tensorrtllm": _TEXT,
    "llmapi": _TEXT,
    "openai": "Use the path under /v1 that fits it: chat/completions, completions or embeddings.",
    "embedding": "Use POST /v1/embeddings.",
    "tensor": "Use POST /v2/models/{model}/infer or generate.",
}


def batch_not_offered(model: ModelPolicy) -> CallerError:
    return CallerError(
        "batch_not_offered",
        f"The model {model.name!r} is not offered in batches; send the request by itself.",
        field="model",
    )


def serving_unknown(model: str) -> WorldError:
    return WorldError(
        "serving_unknown",
        f"How {model!r} is reached is being changed just now; try again.",
    )


def pass_invalid() -> CallerError:
    return CallerError("invalid_batch_pass", "This batch pass is not valid.", status=401)


def unmeasurable() -> WorldError:
    return WorldError(
        "unmeasurable_answer",
        "The model did not report its token counts, so this answer cannot be served.",
        status=502,
        retry_after_s=None,
    )


def internal(request_id: UUID) -> WorldError:
    return WorldError(
        "internal_error",
        f"Something is wrong on our side. Mention request {request_id}.",
        status=500,
        retry_after_s=None,
    )


def render(failure: CallerError | WorldError, surface: str) -> tuple[int, bytes, bytes]:
    """Status, header lines and body of a failure for a `surface` (`openai` or `kserve`)."""
    headers = b"content-type: application/json\r\n"
    if failure.retry_after_s is not None:
        headers += b"retry-after: %d\r\n" % max(1, failure.retry_after_s)
    if failure.status == 402 or (failure.status == 429 and failure.retry_after_s is None):
        # The OpenAI clients retry some refusals on their own; these do not get better.
        headers += b"x-should-retry: false\r\n"
    if isinstance(failure, LimitReached):
        headers += refusal_headers(failure)
    if failure.status == 401:
        headers += b'www-authenticate: Bearer realm="meterplane"\r\n'
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
