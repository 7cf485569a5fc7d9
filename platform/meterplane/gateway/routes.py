"""Which paths there are, and what each wants done. Everything else is a 404 in its surface's shape.

Triton's own control routes (load, unload, shared memory, trace, log settings, statistics) are not
listed, so they do not exist here.
"""

import re
from collections.abc import Awaitable, Callable

import msgspec

from meterplane.gateway import errors
from meterplane.gateway.authenticate import authenticate, bearer_digest
from meterplane.gateway.exchange import JSON, Exchange
from meterplane.gateway.forward import forward, speakers
from meterplane.gateway.pipeline import Parse, Parts, serve
from meterplane.gateway.surface import Work
from meterplane.gateway.surfaces import kserve_infer, openai_chat, openai_embeddings
from meterplane.kernel.errors import CallerError
from meterplane.kernel.limits import REFUSING_POLICY_AGE_S_MAX
from meterplane.triton.health import ready

Handler = Callable[[Exchange, Parts], Awaitable[None]]
TEXT = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
_NAME = r"(?P<model>[A-Za-z0-9][A-Za-z0-9._-]{0,79})"
_VERSION = r"(/versions/(?P<version>[0-9]{1,9}))?"
_INFER = re.compile(rf"/v2/models/{_NAME}{_VERSION}/infer")
_MODEL_READY = re.compile(rf"/v2/models/{_NAME}{_VERSION}/ready")


def metered(parse: Parse) -> Handler:
    """A route whose body is a request to be admitted and forwarded."""

    async def handle(exchange: Exchange, parts: Parts) -> None:
        await serve(exchange, parse, speakers, forward, parts)

    return handle


async def infer(exchange: Exchange, parts: Parts) -> None:
    match = _INFER.fullmatch(exchange.path)
    model = match["model"] if match else ""
    version = (match["version"] if match else None) or ""
    length = exchange.headers.get(kserve_infer.HEADER_LENGTH)

    def parse(body: bytes) -> Work:
        return kserve_infer.parse(model, version, body, length)

    await serve(exchange, parse, speakers, forward, parts)


async def models(exchange: Exchange, parts: Parts) -> None:
    """What this key may use."""
    digest = bearer_digest(exchange.headers.get(b"authorization"), parts.pepper)
    policy = await authenticate(digest, parts.policies, REFUSING_POLICY_AGE_S_MAX)
    data = [
        {"id": model.name, "object": "model", "created": 0, "owned_by": "meterplane"}
        for model in sorted(policy.models.values(), key=lambda model: model.name)
    ]
    exchange.answer(200, JSON, msgspec.json.encode({"object": "list", "data": data}))


async def server_live(exchange: Exchange, parts: Parts) -> None:
    exchange.answer(200, b"", b"")


async def server_ready(exchange: Exchange, parts: Parts) -> None:
    exchange.answer(200 if await ready(parts.fleet.pool()) else 400, b"", b"")


async def model_ready(exchange: Exchange, parts: Parts) -> None:
    """For a key that may use the model; `tritonclient` looks at the status only."""
    digest = bearer_digest(exchange.headers.get(b"authorization"), parts.pepper)
    policy = await authenticate(digest, parts.policies, REFUSING_POLICY_AGE_S_MAX)
    match = _MODEL_READY.fullmatch(exchange.path)
    model = policy.models.get(match["model"]) if match else None
    if model is None:
        raise errors.model_not_found(match["model"] if match else "")
    exchange.answer(200 if await ready(parts.fleet.pool(), model.upstream) else 400, b"", b"")


async def healthz(exchange: Exchange, parts: Parts) -> None:
    """This process runs."""
    exchange.answer(200, JSON, b'{"status":"ok"}')


async def readyz(exchange: Exchange, parts: Parts) -> None:
    """This worker can take paid requests: its journal is writable."""
    healthy = parts.journal.healthy
    body = {"status": "ok" if healthy else "journal_unavailable"}
    exchange.answer(200 if healthy else 503, JSON, msgspec.json.encode(body))


async def metrics(exchange: Exchange, parts: Parts) -> None:
    """Prometheus text. Not for callers: keep the path off the public side."""
    exchange.answer(200, TEXT, parts.metrics.text())


_EXACT: dict[str, tuple[str, Handler]] = {
    "/v1/chat/completions": ("POST", metered(openai_chat.parse)),
    "/v1/embeddings": ("POST", metered(openai_embeddings.parse)),
    "/v1/models": ("GET", models),
    "/v2/health/live": ("GET", server_live),
    "/v2/health/ready": ("GET", server_ready),
    "/healthz": ("GET", healthz),
    "/readyz": ("GET", readyz),
    "/metrics": ("GET", metrics),
}
_PATTERNS: list[tuple[re.Pattern[str], str, Handler]] = [
    (_INFER, "POST", infer),
    (_MODEL_READY, "GET", model_ready),
]


def find(method: str, path: str) -> Handler:
    """The handler of a route. Raises `CallerError` 404 or 405."""
    found = _EXACT.get(path)
    if found is None:
        for pattern, wanted, handler in _PATTERNS:
            if pattern.fullmatch(path):
                found = (wanted, handler)
                break
    if found is None:
        raise CallerError(
            "not_found", f"There is nothing at {path[:200]!r}. See /v1 and /v2.", status=404
        )
    wanted, handler = found
    if method != wanted:
        raise CallerError(
            "method_not_allowed", f"Use {wanted} here, not {method[:16]}.", status=405
        )
    return handler
