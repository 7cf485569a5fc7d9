"""The door to what the control plane keeps of `/v1`: a caller needs one address only.

Files and batches, usage, requests and receipts. Guarantees: a malformed or dead key goes no further
than here; bodies pass through in both directions without being held, bounded in bytes and in each
wait, uploads also in all; of the answer's headers only those listed go back. Knows nothing of what
is asked for: that is decided there.
"""

import asyncio
import re
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httptools

from meterplane.gateway.addresses import caller_address, check_address
from meterplane.gateway.authenticate import authenticate, bearer_digest
from meterplane.gateway.exchange import Exchange
from meterplane.gateway.pipeline import Parts
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.limits import (
    REFUSING_POLICY_AGE_S_MAX,
    STREAM_DURATION_S_MAX,
    UPSTREAM_CONNECT_TIMEOUT_S,
    UPSTREAM_IDLE_TIMEOUT_S,
)

PATHS = re.compile(
    r"/v1/((files|batches)(/[A-Za-z0-9_-]{1,64}(/(content|cancel))?)?"
    r"|usage|requests(/[A-Za-z0-9_-]{1,64})?|receipts/[A-Za-z0-9_-]{1,64})"
)
METHODS = ("GET", "POST", "DELETE")

UPLOAD_BYTES_MAX = 200 * 1024 * 1024 + 64 * 1024  # OpenAI's bound on a file, and its envelope
UPLOAD_DURATION_S_MAX = 600.0  # 200 MB at 2.8 Mbit/s; else a byte a minute would do for ever
HEAD_TIMEOUT_S = 120.0  # from the end of the body: 200 MB are parsed and stored in between
READ_BYTES = 64 * 1024
WHOLE_BYTES_MAX = 256 * 1024  # an answer up to this goes back in one piece, with its length
PASSED_BACK = (
    b"content-type",
    b"content-disposition",
    b"retry-after",
    b"x-should-retry",
    b"www-authenticate",
    b"allow",
    b"cache-control",
)


async def relay(exchange: Exchange, parts: Parts) -> None:
    """Answer a request of one of `PATHS` with what the control plane answers."""
    digest = bearer_digest(exchange.headers.get(b"authorization"), parts.pepper)
    policy = await authenticate(digest, parts.policies, REFUSING_POLICY_AGE_S_MAX)
    if policy.ip_ranges is not None:
        forwarded_for = exchange.headers.get(b"x-forwarded-for")
        check_address(
            policy.ip_ranges, caller_address(exchange.peer, forwarded_for, parts.trusted_proxies)
        )
    if not parts.control_url:
        raise no_control_plane()
    if exchange.headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise CallerError(
            "unsupported_encoding", "Send files and batches uncompressed.", status=415
        )
    reader, writer = await connect(parts.control_url)
    answer = Answer(reader)
    try:
        await _send(exchange, parts.control_url, writer, answer)
        await _pass_back(exchange, answer)
    finally:
        writer.close()


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the control plane. Raises `WorldError`."""
    address = urlsplit(url)
    secure = address.scheme == "https"
    try:
        async with asyncio.timeout(UPSTREAM_CONNECT_TIMEOUT_S):
            return await asyncio.open_connection(
                address.hostname,
                address.port or (443 if secure else 80),
                ssl=secure or None,
                limit=READ_BYTES,
            )
    except (OSError, TimeoutError):
        raise away() from None


async def _send(
    exchange: Exchange, url: str, writer: asyncio.StreamWriter, answer: "Answer"
) -> None:
    """The head, and the body as it arrives; less of it when the answer comes first."""
    chunked = b"transfer-encoding" in exchange.headers
    writer.write(_head(exchange, url, chunked=chunked))
    reading = asyncio.ensure_future(answer.read_head())
    try:
        # Whatever goes wrong in writing, the other side may have said why: the answer tells.
        with suppress(OSError, TimeoutError):
            async for block in exchange.blocks(UPLOAD_BYTES_MAX, UPLOAD_DURATION_S_MAX):
                if reading.done():
                    break
                writer.write(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
                async with asyncio.timeout(UPSTREAM_IDLE_TIMEOUT_S):
                    await writer.drain()
            if chunked:
                writer.write(b"0\r\n\r\n")
        exchange.allow(HEAD_TIMEOUT_S + UPSTREAM_IDLE_TIMEOUT_S)
        async with asyncio.timeout(HEAD_TIMEOUT_S):
            await reading
    except TimeoutError:
        raise WorldError(
            "control_timeout", "The control plane took too long to answer.", status=504
        ) from None
    finally:
        if not reading.done():
            reading.cancel()
        with suppress(asyncio.CancelledError, WorldError):
            await reading


def _head(exchange: Exchange, url: str, *, chunked: bool) -> bytes:
    address = urlsplit(url)
    target = address.path.encode() + exchange.path.encode("latin-1")
    if exchange.query:
        target += b"?" + exchange.query
    lines = [
        b"%b %b HTTP/1.1" % (exchange.method.encode(), target),
        b"host: " + address.netloc.rpartition("@")[2].encode(),
        b"authorization: " + exchange.headers[b"authorization"],
        b"x-request-id: " + str(exchange.request_id).encode(),
        b"connection: close",
    ]
    lines += [
        name + b": " + exchange.headers[name]
        for name in (b"content-type", b"accept")
        if name in exchange.headers
    ]
    if chunked:
        lines.append(b"transfer-encoding: chunked")
    elif b"content-length" in exchange.headers:
        lines.append(b"content-length: " + exchange.headers[b"content-length"])
    return b"\r\n".join(lines) + b"\r\n\r\n"


async def _pass_back(exchange: Exchange, answer: "Answer") -> None:
    headers = b"".join(
        name + b": " + answer.headers[name] + b"\r\n"
        for name in PASSED_BACK
        if name in answer.headers
    )
    exchange.allow(STREAM_DURATION_S_MAX)
    if answer.length is not None and answer.length <= WHOLE_BYTES_MAX:
        body = b""
        while block := await answer.block():
            body += block
        exchange.answer(answer.status, headers, body)
        return
    exchange.begin(answer.status, headers)
    while block := await answer.block():
        exchange.allow(STREAM_DURATION_S_MAX)
        await exchange.write(block, more=True)
    await exchange.write(b"", more=False)


class Answer:
    """The answer as it arrives. Raises `WorldError` when it does not, or not all of it."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.length: int | None = None
        self._reader = reader
        self._parser: Any = httptools.HttpResponseParser(self)
        self._blocks: list[bytes] = []
        self._head_complete = False
        self._complete = False

    async def read_head(self) -> None:
        """Until status and headers are here."""
        while not self._head_complete:
            await self._feed()

    async def read_head_in_time(self) -> None:
        """As `read_head`, for a request without a body."""
        try:
            async with asyncio.timeout(UPSTREAM_IDLE_TIMEOUT_S):
                await self.read_head()
        except TimeoutError:
            raise away() from None

    async def block(self) -> bytes:
        """The next bytes of the body; empty at its end."""
        while not self._blocks and not self._complete:
            try:
                async with asyncio.timeout(UPSTREAM_IDLE_TIMEOUT_S):
                    await self._feed()
            except TimeoutError:
                raise away() from None
        found, self._blocks = b"".join(self._blocks), []
        return found

    async def _feed(self) -> None:
        try:
            data = await self._reader.read(READ_BYTES)
            if data:
                self._parser.feed_data(data)
        except (OSError, httptools.HttpParserError):
            raise away() from None
        if not data and not self._complete:
            framed = self.length is not None or b"transfer-encoding" in self.headers
            if not self._head_complete or framed:
                raise away()
            self._complete = True  # framed by the end of the connection

    # --- the parser's side

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        length = self.headers.get(b"content-length")
        self.length = int(length) if length is not None and length.isdigit() else None
        self._head_complete = True

    def on_body(self, body: bytes) -> None:
        self._blocks.append(body)

    def on_message_complete(self) -> None:
        self._complete = True


def no_control_plane() -> WorldError:
    """Nobody told this gateway where it is."""
    return WorldError(
        "no_control_plane",
        "This gateway serves models only; set CONTROL_URL for files, batches and usage.",
        status=501,
        retry_after_s=None,
    )


def away() -> WorldError:
    """It cannot be reached, or breaks off."""
    return WorldError(
        "control_unavailable", "Files, batches and usage are not available right now; try again."
    )
