"""One request of a caller over gRPC: who asks, when it must end, and why it was cut.

A unary call has one, a stream one per message. Guarantees: its task is cancelled at most once by
us, with the reason in `cut`; it is told to the log and counted once, whatever becomes of it.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable
from typing import Literal

from meterplane.gateway import errors, trace
from meterplane.gateway.exchange import ClientGone
from meterplane.gateway.pipeline import Parts, go_on_after_cancel
from meterplane.gateway.run import Run
from meterplane.gateway.trace import Trace
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.ids import uuid7

log = logging.getLogger("meterplane.gateway")

Cut = Literal["", "left", "late", "refused"]


class Call:
    """`headers` are the caller's metadata, names in lower case, repeated ones joined."""

    def __init__(self, method: str, headers: dict[bytes, bytes], parts: Parts) -> None:
        self.method = "POST"
        self.headers = headers
        self.path = f"/inference.GRPCInferenceService/{method}"
        self.request_id = uuid7()
        self.request_name = str(self.request_id)
        self.received_at = time.monotonic()
        self.status = 0
        self.bytes_out = 0
        self.run: Run | None = None
        self.trace: Trace | None = None
        if parts.spans is not None:
            self.trace = parts.spans.begin(headers, self.method, "grpc")
        elif b"traceparent" in headers:
            self.trace = trace.read(headers)
        self.patience_s = math.inf  # the caller's own deadline, from when it was asked
        self.begun = False  # something of an answer was sent
        self.cut: Cut = ""
        self.refusal: CallerError | None = None  # what the caller is told where it is "refused"
        self._parts = parts
        self._task = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None

    def allow(self, seconds: float) -> None:
        """From now on the answer may take this long."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self.end_early, "late")

    def end_early(self, why: Cut) -> bool:
        """Cancel whoever answers; False when that was done already."""
        if self.cut or self._task is None or self._task.done():
            return False
        self.cut = why
        return self._task.cancel()

    async def conclude(self, answering: Awaitable[None]) -> CallerError | WorldError | None:
        """Answer, and see that it is told. What the caller must still be told is returned.

        Raises `ClientGone` when nobody is there to be told, and CancelledError when we shut down.
        """
        code = ""
        try:
            await answering
            self.status = 200
        except ClientGone:
            self.status, code = 499, "client_gone"
            raise
        except (CallerError, WorldError) as failure:
            self.status, code = failure.status, failure.code
            return failure
        except asyncio.CancelledError:
            if self.refusal is None:
                self.status, code = 499, "client_gone" if self.cut == "left" else "shutting_down"
                raise
            go_on_after_cancel()
            self.status, code = self.refusal.status, self.refusal.code
            return self.refusal
        except Exception:
            self.status, code = 500, "internal_error"
            log.exception("request %s failed", self.request_id)
            return errors.internal(self.request_id)
        finally:
            self._end(code)
        return None

    def _end(self, code: str) -> None:
        parts = self._parts
        if self._timer is not None:
            self._timer.cancel()
        seconds = time.monotonic() - self.received_at
        if self.run is not None:
            parts.metrics.admitted(self.run, self.status, seconds)
        elif code:
            parts.metrics.refused("grpc", code, self.status, seconds)
        else:
            parts.metrics.unmetered("grpc", self.status, seconds)
        parts.log.tell(self, code, seconds)
        if parts.spans is not None:
            parts.spans.end(self, code)
