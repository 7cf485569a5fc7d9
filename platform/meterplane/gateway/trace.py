"""W3C trace context: whose trace a request belongs to, and what the next server is told.

Source: https://www.w3.org/TR/trace-context/ (level 1, and level 2's random flag).

Guarantees: nothing of a caller's is forwarded that is not valid. A malformed `traceparent` is
replaced by a trace of our own, and takes its `tracestate` with it; a malformed `tracestate` is
dropped alone. The server behind us is told our span as its parent. Without a `traceparent`
nothing is sent on, unless spans are exported from here (`spans.py`).
"""

import os
import re
from dataclasses import dataclass

# A version after 00 may hold more, after a dash; what we know of it is read (section 4.3).
_TRACEPARENT = re.compile(
    rb"(?!ff)(?P<version>[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})"
    rb"-(?P<span>(?!0{16})[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-[\x21-\x7e]*)?"
)
FLAGS_KNOWN = 0x03  # sampled, random: a flag we do not know is not ours to pass on
TRACESTATE_BYTES_MAX = 512
TRACESTATE_MEMBERS_MAX = 32
_MEMBER = re.compile(
    rb"[ \t]*(?:(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    rb"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])?[ \t]*"
)


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


def read(headers: dict[bytes, bytes]) -> Trace | None:
    """The caller's trace, continued, or one of our own in place of a malformed one.

    None when the caller has none.
    """
    given = headers.get(b"traceparent")
    if given is None:
        return None
    match = _TRACEPARENT.fullmatch(given)
    if match is None or (match["more"] and match["version"] == b"00"):
        return begin()
    return Trace(
        match["trace"].decode(),
        os.urandom(8).hex(),
        match["span"].decode(),
        f"{int(match['flags'], 16) & FLAGS_KNOWN:02x}",
        _state(headers.get(b"tracestate", b"")),
    )


def begin() -> Trace:
    """A trace that begins here; sampled, as nobody before us decided otherwise."""
    return Trace(os.urandom(16).hex(), os.urandom(8).hex(), "", "01")


def _state(given: bytes) -> bytes:
    """A `tracestate` as it may be passed on: whole, or not at all."""
    if not given or len(given) > TRACESTATE_BYTES_MAX:
        return b""
    members = given.split(b",")
    names = [member.partition(b"=")[0].strip() for member in members if member.strip()]
    if (
        len(members) > TRACESTATE_MEMBERS_MAX
        or len(set(names)) != len(names)
        or not all(map(_MEMBER.fullmatch, members))
    ):
        return b""
    return given.strip()
