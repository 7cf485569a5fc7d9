"""One line of JSON per request, without payloads or secrets; written a few times a second.

A write per line would cost more than the line. What a killed process had not written yet is lost
from the log and from nowhere else: usage is in the journal.
"""

import asyncio
import os
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

import msgspec

if TYPE_CHECKING:
    from meterplane.gateway.run import Run
    from meterplane.gateway.trace import Trace

WRITE_EVERY_S = 0.1
WAITING_LINES_MAX = 8192  # 8,192 x ~400 bytes = 3 MB; beyond that the reader is gone: drop, count


class Told(Protocol):
    """A request of any surface that has ended."""

    request_name: str
    method: str
    path: str
    status: int
    bytes_out: int
    run: "Run | None"
    trace: "Trace | None"


class Line(msgspec.Struct, omit_defaults=True, gc=False):
    """What is told of a request."""

    request_id: str
    method: str
    path: str
    status: int
    code: str
    ms: int
    bytes_out: int
    tenant_id: UUID | None = None
    project_id: UUID | None = None
    key_id: UUID | None = None
    model: str = ""
    tokens_in: int = -1
    tokens_out: int = -1
    cost_nano: int = -1
    server: str = ""
    retries: int = 0
    trace_id: str = ""


class AccessLog:
    """Lines to a file descriptor, in order."""

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self._lines: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._encoder = msgspec.json.Encoder()
        self.dropped = 0

    def tell(self, exchange: Told, code: str, seconds: float) -> None:
        """One line for an exchange that has ended."""
        line = Line(
            exchange.request_name,
            exchange.method,
            exchange.path[:200],
            exchange.status,
            code,
            int(seconds * 1000),
            exchange.bytes_out,
        )
        settled = exchange.run.settled if exchange.run is not None else None
        if settled is not None:
            line.tenant_id = settled.tenant_id
            line.project_id = settled.project_id
            line.key_id = settled.key_id
            line.model = settled.model
            line.tokens_in = settled.tokens_in
            line.tokens_out = settled.tokens_out
            line.cost_nano = settled.cost_nano
            line.server = settled.server
            line.retries = settled.retries
        if exchange.trace is not None:
            line.trace_id = exchange.trace.trace_id
        self._add(self._encoder.encode(line))

    def _add(self, line: bytes) -> None:
        if len(self._lines) >= WAITING_LINES_MAX:
            self.dropped += 1
            return
        self._lines.append(line)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WRITE_EVERY_S, self.flush)

    def flush(self) -> None:
        """Write what waits."""
        self._timer = None
        lines, self._lines = self._lines, []
        if lines:
            data = memoryview(b"\n".join([*lines, b""]))
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                self.dropped += len(lines)
