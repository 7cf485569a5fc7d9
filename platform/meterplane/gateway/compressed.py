"""Compressed bodies: requests bounded like plain ones, answers as the caller accepts them.

Guarantees: a small body cannot become a large one; no body, however well it compresses, keeps the
other requests of a worker waiting: what is more than a moment's work is done beside the loop.
"""

import asyncio
import zlib

from meterplane.kernel.errors import CallerError
from meterplane.kernel.limits import REQUEST_BODY_BYTES_MAX

INLINE_BYTES_MAX = 64 * 1024  # inflated in ~0.1 ms, deflated in ~2 ms; a thread costs ~0.1 ms
GZIP_OR_ZLIB_WBITS = 47  # both headers, recognised by themselves
GZIP_WBITS = 31


async def decompress(body: bytes, encoding: bytes) -> bytes:
    """A gzip or deflate body, bounded like a plain one. Raises `CallerError` 400, 413, 415."""
    if encoding in (b"", b"identity"):
        return body
    if encoding not in (b"gzip", b"deflate"):
        raise CallerError(
            "unsupported_encoding", "Content-Encoding may be gzip, deflate or none", status=415
        )
    inflater = zlib.decompressobj(wbits=GZIP_OR_ZLIB_WBITS)
    plain = _inflate(inflater, body, INLINE_BYTES_MAX)
    if len(plain) == INLINE_BYTES_MAX and not inflater.eof:
        # How much more it becomes is known only by doing it.
        rest = REQUEST_BODY_BYTES_MAX + 1 - len(plain)
        plain += await asyncio.to_thread(_inflate, inflater, inflater.unconsumed_tail, rest)
    if len(plain) > REQUEST_BODY_BYTES_MAX:
        raise body_too_large()
    if not inflater.eof:
        raise CallerError("invalid_body", "the compressed body ends early")
    return plain


def _inflate(inflater: "zlib._Decompress", body: bytes, bytes_max: int) -> bytes:
    try:
        return inflater.decompress(body, bytes_max)
    except zlib.error as problem:
        raise CallerError("invalid_body", f"the body cannot be decompressed: {problem}") from None


def encoding_for(accepted: bytes | None) -> bytes:
    """What an Accept-Encoding asks an answer to be: `gzip`, `deflate`, or empty for neither.

    The highest weight wins, of equals the first. Nothing but these two is ever written, and not
    for a `*`: a caller who does not say what it can read gets what everybody can.
    """
    chosen, weight_max = b"", 0.0
    for part in (accepted or b"").split(b","):
        name, _, parameters = part.partition(b";")
        name = name.strip()
        weight = _weight(parameters.strip())
        if weight > weight_max and name in (b"gzip", b"deflate", b"identity"):
            chosen, weight_max = name, weight
    return b"" if chosen == b"identity" else chosen


def _weight(parameters: bytes) -> float:
    if not parameters:
        return 1.0
    try:
        return float(parameters.removeprefix(b"q="))
    except ValueError:
        return 0.0


async def compress(body: bytes, encoding: bytes) -> bytes:
    """A body as `encoding_for` said, not empty."""
    if len(body) <= INLINE_BYTES_MAX:
        return _deflate(body, encoding)
    return await asyncio.to_thread(_deflate, body, encoding)


def _deflate(body: bytes, encoding: bytes) -> bytes:
    wbits = GZIP_WBITS if encoding == b"gzip" else zlib.MAX_WBITS
    deflater = zlib.compressobj(wbits=wbits)
    return deflater.compress(body) + deflater.flush()


def body_too_large(bytes_max: int = REQUEST_BODY_BYTES_MAX) -> CallerError:
    megabytes = bytes_max // (1024 * 1024)
    return CallerError(
        "body_too_large", f"The body is larger than {megabytes} MB; split it.", status=413
    )


def body_too_slow() -> CallerError:
    return CallerError("request_timeout", "The body took too long to arrive.", status=408)
