"""A request to an inference server: written once, sent as often as it has to be.

Guarantees: nothing a caller passes can become another header, another request or another length.
Knows neither the server, whose `Host` and path prefix are put in at the time of sending, nor the
transport.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from meterplane.kernel.invariant import ensure

METHODS = {"GET": b"GET ", "POST": b"POST ", "DELETE": b"DELETE "}

_TARGET = re.compile(r"/[\x21-\x7e]*").fullmatch
# `token ":" value`, as RFC 9112 has it: no line break or NUL in a value, no space before the colon.
# The names that frame a message are ours alone.
_HEADER_LINES = re.compile(
    rb"(?:(?!(?i:host|content-length|transfer-encoding|connection|upgrade|expect):)"
    rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\x00]*\r\n)*+"
).fullmatch
_HEADER_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch

JOINED_BODY_BYTES_MAX = 64 * 1024  # above it a second write is cheaper than a copy of the body
TARGETS_CACHED_MAX = 1024  # 1,024 x ~200 bytes; paths are few: a model's, not a caller's
HEADERS_CACHED_MAX = 256  # 256 x ~400 bytes; a content type, a secret; traces come and go


class HeaderLines(bytes):
    """Headers as they go out, checked. Only `of` makes them."""

    __slots__ = ()

    @staticmethod
    def of(headers: Sequence[tuple[bytes, bytes]] | bytes) -> "HeaderLines":
        """From pairs, or from whole lines. Make them once and give them to many requests.

        A name that is not a token or that frames the message is our fault: `InvariantBroken`. So
        is a value with a line break: whoever passes a caller's value on checks it before.
        """
        if not isinstance(headers, bytes):
            for name, _ in headers:
                ensure(_HEADER_NAME(name), "a header's name is a token")
            lines = b"".join([b"%b: %b\r\n" % header for header in headers])
            ensure(lines.count(b"\n") == len(headers), "a header's value holds no line break")
            headers = lines
        return _checked(headers)


@lru_cache(HEADERS_CACHED_MAX)
def _checked(lines: bytes) -> HeaderLines:
    ensure(_HEADER_LINES(lines), "header lines are whole and do not frame the message")
    return HeaderLines(lines)


@lru_cache(TARGETS_CACHED_MAX)
def _target(path: str) -> bytes:
    # A line break or space of a caller's making would be a header or request of its making.
    ensure(_TARGET(path), "a path begins with a slash and holds no space or line break")
    return path.encode()


class Request:
    """`method`, `path` (with its query, encoded; without the server's own prefix) and `body`.

    `headers` are pairs, whole lines, or, cheapest, `HeaderLines`; never Host, Content-Length or
    what else frames a message. Sending it changes nothing in it.
    """

    __slots__ = ("_headers", "_method", "_target", "body", "path")

    def __init__(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Sequence[tuple[bytes, bytes]] | bytes = b"",
    ) -> None:
        self._method = METHODS[method]  # a KeyError is our fault: it is never a caller's
        self._target = _target(path)
        if type(headers) is not HeaderLines:
            headers = _checked(headers) if type(headers) is bytes else HeaderLines.of(headers)
        self._headers = headers
        self.path = path
        self.body = body

    def writes(self, prefix: bytes, version_and_host: bytes) -> tuple[bytes, ...]:
        """What is written to a server: one piece or, with a large body, two.

        `version_and_host` is what follows the path, up to the value of Content-Length.
        """
        body = self.body
        joined = body if len(body) <= JOINED_BODY_BYTES_MAX else b""
        head = b"".join(
            (
                self._method,
                prefix,
                self._target,
                version_and_host,
                b"%d\r\n" % len(body),
                self._headers,
                b"\r\n",
                joined,
            )
        )
        return (head,) if joined is body else (head, body)
