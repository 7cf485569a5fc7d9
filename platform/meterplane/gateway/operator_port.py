"""The port for whoever operates the gateway: metrics, liveness, readiness.

Apart from the port that callers reach, so that no proxy in front can open it by mistake: `/metrics`
tells what is sold, to how many and how well. It listens on loopback unless told otherwise, and
goes on answering while the worker drains. It knows no tenants, and nothing it tells is one's.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from meterplane.gateway import errors
from meterplane.gateway.exchange import ClientGone, Exchange
from meterplane.gateway.exposition import CONTENT_TYPE
from meterplane.gateway.http1 import HttpConnection
from meterplane.gateway.pipeline import Parts
from meterplane.gateway.routes import healthz, readyz
from meterplane.kernel.errors import CallerError

log = logging.getLogger("meterplane.gateway")

BACKLOG = 16
CONNECTIONS_MAX = 64  # a scraper and some probes; one more is hung up on


async def metrics(exchange: Exchange, parts: Parts) -> None:
    """Prometheus text."""
    exchange.answer(200, CONTENT_TYPE, await parts.metrics.text())


_PATHS: dict[str, Callable[[Exchange, Parts], Awaitable[None]]] = {
    "/metrics": metrics,
    "/healthz": healthz,
    "/readyz": readyz,
}


class OperatorPort:
    """One worker's. `listen` opens it, `sweep` enforces its waits once a second."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._connections: set[HttpConnection] = set()
        self._answering: set[asyncio.Task[None]] = set()
        self._server: asyncio.AbstractServer | None = None

    async def listen(self, host: str, port: int) -> None:
        """Raises OSError when the port cannot be had."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: HttpConnection(self._start, self._connections), host, port, backlog=BACKLOG
        )

    def sweep(self, now: float) -> None:
        """Cut whoever is waited for too long, and what is too many."""
        for connection in list(self._connections)[CONNECTIONS_MAX:]:
            connection.abort()
        for connection in list(self._connections):
            if connection.deadline and connection.deadline < now:
                connection.overdue(now)

    async def close(self) -> None:
        """Stop listening and hang up."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.abort()
        if self._answering:
            await asyncio.wait(self._answering)

    def _start(self, exchange: Exchange) -> None:
        task = exchange.task = asyncio.get_running_loop().create_task(self._answer(exchange))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, exchange: Exchange) -> None:
        try:
            handler = _PATHS.get(exchange.path)
            if handler is None or exchange.method != "GET":
                raise CallerError(
                    "not_found", "Here are GET /metrics, /healthz and /readyz.", status=404
                )
            await handler(exchange, self._parts)
        except CallerError as failure:
            exchange.answer(*errors.render(failure, "kserve"))
        except (ClientGone, asyncio.CancelledError):
            pass
        except Exception:
            log.exception("request %s failed", exchange.request_id)
            exchange.answer(*errors.render(errors.internal(exchange.request_id), "kserve"))
        finally:
            exchange.end()
