"""One line of JSON per request, without payloads or secrets; written a few times a second.

Of what a caller sends it has the method and the path, without its query; a key of ours that
somebody put into a path is not written. A write per line would cost more than the line. What a
killed process had not written yet is lost from the log and from nowhere else: usage is in the
journal.

Whoever reads the log may stop reading. A write to a full pipe would then hold every request of the
worker, so a pipe is asked first, and given no more than it takes as a whole (`PIPE_BUF`): nothing
blocks, and lines of several workers on one pipe stay lines. What waits too long is dropped and
counted.
"""

import asyncio
import os
import re
import select
import stat
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

import msgspec

from meterplane.contracts.api_key import PREFIXES

if TYPE_CHECKING:
    from meterplane.gateway.run import Run
    from meterplane.gateway.trace import Trace

WRITE_EVERY_S = 0.1
WAITING_LINES_MAX = 8192  # 8,192 x ~400 bytes = 3 MB; beyond that the reader is gone: drop, count
FILE_BLOCK_BYTES = 256 * 1024  # what one write to a file takes; a millisecond on a slow disk
PATH_CHARS_MAX = 200  # a line is below 2 kB whatever it holds, so PIPE_BUF has room for one
_KEY = re.compile(rf"({'|'.join(PREFIXES.values())})[0-9A-Za-z]+")


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
        self._untaken = b""  # lines that a reader had no room for
        self._untaken_lines = 0
        self._taking = select.poll()
        self._taking.register(descriptor, select.POLLOUT)
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._block_bytes = FILE_BLOCK_BYTES if is_file else select.PIPE_BUF
        self._timer: asyncio.TimerHandle | None = None
        self._encoder = msgspec.json.Encoder()
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """Lines that nobody took yet."""
        return len(self._lines) + self._untaken_lines

    def tell(self, exchange: Told, code: str, seconds: float) -> None:
        """One line for an exchange that has ended."""
        line = Line(
            exchange.request_name,
            exchange.method,
            _shown(exchange.path),
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
        if len(self._lines) + self._untaken_lines >= WAITING_LINES_MAX:
            self.dropped += 1
            return
        self._lines.append(line)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WRITE_EVERY_S, self.flush)

    def flush(self) -> None:
        """Write what waits, as far as the reader takes it now; the rest a moment later."""
        self._timer = None
        lines, self._lines = self._lines, []
        data = self._untaken + b"\n".join([*lines, b""])
        begin = 0
        while begin < len(data) and self._taking.poll(0):
            end = data.rfind(b"\n", begin, begin + self._block_bytes) + 1
            end = end or data.index(b"\n", begin) + 1  # one line that is longer, all the same
            self._write(data[begin:end])
            begin = end
        self._untaken = data[begin:]
        self._untaken_lines = self._untaken.count(b"\n")
        if self._untaken:
            self._timer = asyncio.get_running_loop().call_later(WRITE_EVERY_S, self.flush)

    def _write(self, block: bytes) -> None:
        data = memoryview(block)
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            self.dropped += block.count(b"\n")


def _shown(path: str) -> str:
    path = path[:PATH_CHARS_MAX]
    return _KEY.sub(r"\1...", path) if "mp_" in path else path
