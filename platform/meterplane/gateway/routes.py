"""Which paths there are, and what each wants done. Everything else is a 404 in its surface's shape.

Triton's own control routes (load, unload, shared memory, trace, log settings, statistics) are not
listed, so they do not exist here.
"""

import re
from collections.abc import Awaitable, Callable

import msgspec

from meterplane.gateway import control_proxy, key_set, model_routes
from meterplane.gateway.exchange import JSON, Exchange
from meterplane.gateway.forward import forward, speakers
from meterplane.gateway.pipeline import Parse, Parts, serve
from meterplane.gateway.surface import Work
from meterplane.gateway.surfaces import (
    kserve_generate,
    kserve_infer,
    openai_chat,
    openai_completions,
    openai_embeddings,
)
from meterplane.kernel.errors import CallerError
from meterplane.kernel.invariant import ensure
from meterplane.triton.health import ready

Handler = Callable[[Exchange, Parts], Awaitable[object]]
_INFER = re.compile(rf"/v2/models/{model_routes.NAME}{model_routes.VERSION}/infer")
_GENERATE = re.compile(
    rf"/v2/models/{model_routes.NAME}{model_routes.VERSION}/generate(?P<stream>_stream)?"
)


def metered(parse: Parse) -> Handler:
    """A route whose body is a request to be admitted and forwarded."""

    def handle(exchange: Exchange, parts: Parts) -> Awaitable[object]:
        return serve(exchange, parse, speakers, forward, parts)

    return handle


async def infer(exchange: Exchange, parts: Parts) -> None:
    """`POST /v2/models/{m}[/versions/{v}]/infer`."""
    model, version, _ = _of(_INFER, exchange)
    length = exchange.headers.get(kserve_infer.HEADER_LENGTH)

    def parse(body: bytes) -> Work:
        return kserve_infer.parse(model, version, body, length)

    await serve(exchange, parse, speakers, forward, parts)


async def generate(exchange: Exchange, parts: Parts) -> None:
    """`POST /v2/models/{m}[/versions/{v}]/generate` and `generate_stream`."""
    model, version, stream = _of(_GENERATE, exchange)

    def parse(body: bytes) -> Work:
        return kserve_generate.parse(model, version, body, stream=stream)

    await serve(exchange, parse, speakers, forward, parts)


def _of(pattern: re.Pattern[str], exchange: Exchange) -> tuple[str, str, bool]:
    """Model, version (empty: none named) and whether a stream is asked for, from a path."""
    match = pattern.fullmatch(exchange.path)
    ensure(match is not None, "a route's handler gets the route's paths")
    groups = match.groupdict() if match else {}
    return groups["model"], groups["version"] or "", bool(groups.get("stream"))


async def server_live(exchange: Exchange, parts: Parts) -> None:
    """This process runs; nobody is asked."""
    exchange.answer(200, model_routes.PLAIN, b"")


async def server_ready(exchange: Exchange, parts: Parts) -> None:
    """A server behind is ready. Needs no key, so a server is not asked for each who asks."""
    found = await parts.readiness.servers.found(lambda: ready(parts.fleet.pool()))
    exchange.answer(200 if found else 400, model_routes.PLAIN, b"")


async def healthz(exchange: Exchange, parts: Parts) -> None:
    """This process runs."""
    exchange.answer(200, JSON, b'{"status":"ok"}')


async def readyz(exchange: Exchange, parts: Parts) -> None:
    """This worker can take paid requests; if not, what is missing, in a word each."""
    missing = await parts.readiness.missing()
    body: dict[str, str | list[str]] = {"status": "not_ready", "missing": missing}
    if not missing:
        body = {"status": "ok"}
    exchange.answer(503 if missing else 200, JSON, msgspec.json.encode(body))


_EXACT: dict[str, tuple[str, Handler]] = {
    "/v1/chat/completions": ("POST", metered(openai_chat.parse)),
    "/v1/completions": ("POST", metered(openai_completions.parse)),
    "/v1/embeddings": ("POST", metered(openai_embeddings.parse)),
    "/v1/models": ("GET", model_routes.listed),
    "/v2": ("GET", model_routes.server),
    "/v2/health/live": ("GET", server_live),
    "/v2/health/ready": ("GET", server_ready),
    "/healthz": ("GET", healthz),
    "/readyz": ("GET", readyz),
    key_set.PATH: ("GET", key_set.tell),
}
_PATTERNS: list[tuple[re.Pattern[str], str, Handler]] = [
    (_INFER, "POST", infer),
    (_GENERATE, "POST", generate),
    (model_routes.READY, "GET", model_routes.is_ready),
    (model_routes.ONE, "GET", model_routes.one),
    (model_routes.STATS, "GET", model_routes.statistics),
    (model_routes.METADATA, "GET", model_routes.metadata),
]


def find(method: str, path: str) -> Handler:
    """The handler of a route. Raises `CallerError` 404 or 405."""
    found = _EXACT.get(path)
    if found is None:
        for pattern, wanted, handler in _PATTERNS:
            if pattern.fullmatch(path):
                found = (wanted, handler)
                break
    if found is None and control_proxy.PATHS.fullmatch(path):
        # Which method a path takes is decided there; others are told so by what decides.
        found = (method if method in control_proxy.METHODS else "GET", control_proxy.relay)
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
