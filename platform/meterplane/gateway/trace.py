"""W3C trace context: whose trace a request belongs to, and what the next server is told.

A malformed `traceparent` is as good as none (the specification says to start afresh). Without one
nothing is sent on, unless spans are exported from here (`spans.py`).
"""

import os
import re
from dataclasses import dataclass

_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
TRACESTATE_BYTES_MAX = 512


@dataclass(frozen=True, slots=True)
class Trace:
    """One span of ours: `span_id` is new, `parent_id` the caller's (empty when we begin it)."""

    trace_id: str
    span_id: str
    parent_id: str
    flags: str
    state: bytes = b""

    def headers(self) -> bytes:
        """Header lines for the server behind us."""
        lines = f"traceparent: 00-{self.trace_id}-{self.span_id}-{self.flags}\r\n".encode()
        return lines + b"tracestate: %b\r\n" % self.state if self.state else lines


def read(headers: dict[bytes, bytes], *, begin: bool = False) -> Trace | None:
    """The caller's trace, continued; with `begin`, a new one where there is none."""
    given = headers.get(b"traceparent")
    match = _TRACEPARENT.fullmatch(given) if given is not None else None
    if match is None or not match[1].strip(b"0") or not match[2].strip(b"0"):
        if not begin:
            return None
        return Trace(os.urandom(16).hex(), os.urandom(8).hex(), "", "01")
    state = headers.get(b"tracestate", b"")
    if len(state) > TRACESTATE_BYTES_MAX or not state.isascii():
        state = b""
    return Trace(
        match[1].decode(), os.urandom(8).hex(), match[2].decode(), match[3].decode(), state
    )
