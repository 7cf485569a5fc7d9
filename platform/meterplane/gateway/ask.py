"""Ask a server on behalf of an admitted request, and end what came of it.

The end of an answer leaves only after its SETTLE is durable: whoever holds a complete answer is in
the journal.
"""

import os

import msgspec

from meterplane.gateway.adapters.kserve_words import told_of_a_request
from meterplane.gateway.exchange import Exchange
from meterplane.gateway.pipeline import Parts
from meterplane.gateway.run import Run
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.limits import UPSTREAM_FIRST_BYTE_TIMEOUT_S, UPSTREAM_IDLE_TIMEOUT_S
from meterplane.triton.failures import MODEL_DIED, TritonUnavailable
from meterplane.triton.request import Request
from meterplane.triton.upstream import Response, Upstream

JSON_REQUEST = b"content-type: application/json\r\n"
ERROR_CHARS_MAX = 2000
UNKNOWN_MODEL = "Request for unknown model: "  # a Triton's words, whatever the status


def headers_for(exchange: Exchange, run: Run, content: bytes = JSON_REQUEST) -> bytes:
    """Header lines of the upstream request: its content, its trace, the upstream's own secret."""
    lines = content
    if exchange.trace is not None:
        lines += exchange.trace.headers()
    secret = secret_of(run)
    if secret:
        lines += b"authorization: Bearer %b\r\n" % secret.encode("ascii", "ignore")
    return lines


def secret_of(run: Run) -> str:
    """The upstream's own secret; empty when it has none. Raises `WorldError` 503."""
    name = run.offer.serving.secret_env
    secret = os.environ.get(name, "") if name else ""
    if name and not secret:
        raise WorldError(
            "upstream_secret_missing",
            f"The operator must set {name} where the gateway runs, to reach this model.",
            retry_after_s=None,
        )
    return secret


async def fetch(exchange: Exchange, run: Run, request: Request, parts: Parts) -> Response:
    """A whole answer with status 200. Raises what any other answer is."""
    serving = run.offer.serving
    run.forwarded(exchange.received_at)
    answer = await parts.fleet.pool(run.target.servers).fetch(
        request,
        first_byte_timeout_s=serving.first_byte_timeout_s or UPSTREAM_FIRST_BYTE_TIMEOUT_S,
        idle_timeout_s=serving.idle_timeout_s or UPSTREAM_IDLE_TIMEOUT_S,
    )
    run.first_byte()
    run.last_byte()
    run.server = answer.server
    run.retries += answer.retries
    if answer.status != 200:
        raise _refusal(run, answer.status, answer.body)
    if answer.body.startswith(b'{"error"'):  # Triton can fail inside a 200
        raise refusal(500, error_text(answer.body))
    return answer


async def send(exchange: Exchange, run: Run, request: Request, parts: Parts) -> Upstream:
    """An answer with status 200 whose body is still to come; the caller closes it."""
    serving = run.offer.serving
    run.forwarded(exchange.received_at)
    upstream = await parts.fleet.pool(run.target.servers).send(
        request,
        first_byte_timeout_s=serving.first_byte_timeout_s or UPSTREAM_FIRST_BYTE_TIMEOUT_S,
        idle_timeout_s=serving.idle_timeout_s or UPSTREAM_IDLE_TIMEOUT_S,
    )
    run.server = upstream.server
    run.retries += upstream.retries
    if upstream.status != 200:
        try:
            raise _refusal(run, upstream.status, await upstream.read())
        finally:
            upstream.close()
    return upstream


def error_text(body: bytes) -> str:
    """What an answer that is no success says, bounded: Triton's `error` or OpenAI's `message`."""
    try:
        document = msgspec.json.decode(body.removeprefix(b"data:").strip())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        document = None
    found = document.get("error", document.get("message")) if isinstance(document, dict) else None
    if isinstance(found, dict):
        found = found.get("message")
    return found[:ERROR_CHARS_MAX] if isinstance(found, str) else "the server refused the request"


def _refusal(run: Run, status: int, body: bytes) -> CallerError | WorldError:
    text = error_text(body)
    # Under /v1 a caller names nothing of the server's: what is missing there, we were to have.
    if run.work.surface.startswith("openai.") and (status == 404 or text.startswith(UNKNOWN_MODEL)):
        return WorldError(
            "upstream_model_missing",
            "The operator must see to this model: the server it is reached by does not have it.",
            status=502,
            retry_after_s=None,
        )
    return refusal(status, text)


def refusal(status: int, text: str) -> CallerError | WorldError:
    """What a server refused with, as the kind of failure it is."""
    if status == 503 or MODEL_DIED.fullmatch(text):
        # A model whose process died answers 400, as if the caller were at fault.
        return TritonUnavailable(told_of_a_request(text, ""))
    if status in (401, 403):
        # The key is ours, and some servers repeat it.
        return WorldError(
            "upstream_credentials_refused",
            "The operator's credentials for this model were refused by its server.",
            status=502,
            retry_after_s=None,
        )
    if status in (400, 404, 413, 422, 501):
        return CallerError("invalid_request", text, status=400)
    if status == 429:
        return WorldError(
            "upstream_busy", "The model has too much to do just now.", retry_after_s=1
        )
    return WorldError("upstream_failed", text, status=502, retry_after_s=None)


async def finish(exchange: Exchange, run: Run, headers: bytes, content: bytes) -> None:
    """Settle, then answer: in this order."""
    run.bytes_out = len(content)
    await run.settle("ok", 200)
    exchange.answer(200, headers, content)
