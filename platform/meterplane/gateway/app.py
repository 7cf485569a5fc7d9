"""The ASGI application: one exchange per request, every failure answered once, one log line each.

Guarantees: a failure has the shape of its surface and never a stack trace; a log line has no
payload and no secret.
"""

import asyncio
import contextlib
import json
import logging
import time

from meterplane.gateway import errors, routes
from meterplane.gateway.exchange import ClientGone, Exchange, Message, Receive, Scope, Send
from meterplane.gateway.pipeline import Parts
from meterplane.gateway.run import Run
from meterplane.gateway.worker import Worker
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.invariant import ensure

log = logging.getLogger("meterplane.gateway")

CUT_S = 5.0  # what was cut at shutdown settles in milliseconds; a stuck disk must not hold us


class Gateway:
    """ASGI application of one worker; opens and closes what it holds with the lifespan."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._parts: Parts | None = None
        self._answering: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            task = asyncio.current_task()
            ensure(task is not None, "a server runs each request in a task")
            if task is not None:
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)
            await self._answer(Exchange(scope, receive, send))
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            # WebSocket: no surface of ours speaks it.
            await send({"type": "websocket.close", "code": 1000})

    async def _answer(self, exchange: Exchange) -> None:
        began = time.monotonic()
        run: Run | None = None
        code = ""
        try:
            handler = routes.find(exchange.method, exchange.path)
            if self._parts is None:
                raise WorldError("starting", "The gateway is starting; try again.")
            run = await handler(exchange, self._parts)
        except ClientGone:
            code = "client_gone"
        except (CallerError, WorldError) as failure:
            code = failure.code
            await self._tell(exchange, failure)
        except asyncio.CancelledError:
            # Only our own shutdown cancels an exchange, after the drain. It is settled by now.
            code = "shutting_down"
            await self._tell(exchange, WorldError(code, "The gateway is restarting; try again."))
        except Exception:
            code = "internal_error"
            log.exception("request failed", extra={"request_id": str(exchange.request_id)})
            await self._tell(
                exchange,
                WorldError(
                    "internal_error",
                    f"Something is wrong on our side. Mention request {exchange.request_id}.",
                    status=500,
                    retry_after_s=None,
                ),
            )
        _log_line(exchange, run, code, time.monotonic() - began)

    async def _tell(self, exchange: Exchange, failure: CallerError | WorldError) -> None:
        if exchange.begun:
            # Part of an answer is out and its end may not leave (it is not durable): the caller
            # must see a broken answer, not a short one. Ending without the last chunk does that.
            return
        status, headers, body = errors.render(failure, exchange.surface)
        with contextlib.suppress(OSError):
            await exchange.answer(status, headers, body)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message: Message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    self._parts = await self._worker.open()
                except Exception as failure:
                    log.exception("the gateway cannot start")
                    await send({"type": "lifespan.startup.failed", "message": str(failure)})
                    return
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._answered()
                await self._worker.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _answered(self) -> None:
        """Until what the drain has cut is settled: the journal closes after that, not before."""
        if self._answering:
            await asyncio.wait(self._answering, timeout=CUT_S)


def _log_line(exchange: Exchange, run: Run | None, code: str, seconds: float) -> None:
    if exchange.path in ("/healthz", "/readyz"):
        return
    settled = run.settled if run is not None else None
    line = {
        "request_id": str(exchange.request_id),
        "method": exchange.method,
        "path": exchange.path[:200],
        "status": exchange.status,
        "code": code,
        "ms": int(seconds * 1000),
        "bytes_out": exchange.bytes_out,
    }
    if settled is not None:
        line |= {
            "tenant_id": str(settled.tenant_id),
            "model": settled.model,
            "tokens_in": settled.tokens_in,
            "tokens_out": settled.tokens_out,
            "cost_nano": settled.cost_nano,
        }
    log.info(json.dumps(line))
