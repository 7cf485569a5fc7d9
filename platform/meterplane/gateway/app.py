"""The application: one exchange per request, every failure answered once, one log line each.

Guarantees: a failure has the shape of its surface and never a stack trace; a log line has no
payload and no secret.
"""

import asyncio
import logging
import time

from meterplane.gateway import errors, routes, trace
from meterplane.gateway.exchange import ClientGone, Exchange
from meterplane.gateway.pipeline import Parts
from meterplane.journal.writer import JournalUnavailable
from meterplane.kernel.errors import CallerError, WorldError

log = logging.getLogger("meterplane.gateway")


class Gateway:
    """Answers exchanges of one worker."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.answering: set[asyncio.Task[None]] = set()
        self._spans = parts.spans
        self._loop = asyncio.get_running_loop()

    def start(self, exchange: Exchange) -> None:
        """Answer an exchange in a task of its own."""
        task = exchange.task = self._loop.create_task(self._answer(exchange))
        self.answering.add(task)

    async def _answer(self, exchange: Exchange) -> None:
        began = time.monotonic()
        code = ""
        try:
            if self._spans is not None and exchange.path not in _QUIET:
                exchange.trace = self._spans.begin(
                    exchange.headers, exchange.method, exchange.surface
                )
            elif b"traceparent" in exchange.headers:
                exchange.trace = trace.read(exchange.headers)
            handler = routes.find(exchange.method, exchange.path)
            await handler(exchange, self.parts)
        except ClientGone:
            code = "client_gone"
        except (CallerError, WorldError) as failure:
            code = failure.code
            self._tell(exchange, failure)
        except asyncio.CancelledError:
            # Its key may infer no more, the caller left before anything was admitted, or we are
            # shutting down.
            ending = exchange.refusal or _restarting(left=exchange.cut == "left")
            code = ending.code
            self._tell(exchange, ending)
        except Exception:
            code = "internal_error"
            log.exception("request %s failed", exchange.request_id)
            self._tell(exchange, errors.internal(exchange.request_id))
        finally:
            self.answering.discard(exchange.task)
            self._finish(exchange, code, time.monotonic() - began)

    def _finish(self, exchange: Exchange, code: str, seconds: float) -> None:
        exchange.end()
        if exchange.path in _QUIET:
            return
        parts = self.parts
        if exchange.run is not None:
            parts.metrics.admitted(exchange.run, exchange.status, seconds)
        elif code:
            parts.metrics.refused(exchange.surface, code, exchange.status, seconds)
        else:
            parts.metrics.unmetered(exchange.surface, exchange.status, seconds)
        parts.log.tell(exchange, code, seconds)
        if self._spans is not None:
            self._spans.end(exchange, code)

    @staticmethod
    def _tell(exchange: Exchange, failure: CallerError | WorldError) -> None:
        status, headers, body = errors.render(failure, exchange.surface)
        if exchange.begun:
            if exchange.run is None or exchange.ended or isinstance(failure, JournalUnavailable):
                # Part of an answer is out and its end may not leave (it is not durable): the caller
                # must see a broken answer, not a short one.
                exchange.break_off()
            else:  # a stream of events, out of time or cut by our own shutdown, and settled
                exchange.end_with(b"data: " + body + b"\n\n")
            return
        exchange.answer(status, headers, body)


def _restarting(*, left: bool) -> WorldError:
    code = "client_gone" if left else "shutting_down"
    return WorldError(code, "The gateway is restarting; try again.")


_QUIET = frozenset({"/healthz", "/readyz"})
