"""Compressed request bodies, bounded like plain ones: a small body cannot become a large one."""

import zlib

from meterplane.kernel.errors import CallerError
from meterplane.kernel.limits import REQUEST_BODY_BYTES_MAX


def decompress(body: bytes, encoding: bytes) -> bytes:
    """A gzip or deflate body, bounded like a plain one. Raises `CallerError` 400, 413, 415."""
    if encoding in (b"", b"identity"):
        return body
    if encoding not in (b"gzip", b"deflate"):
        raise CallerError(
            "unsupported_encoding", "Content-Encoding may be gzip, deflate or none", status=415
        )
    inflater = zlib.decompressobj(wbits=47)  # zlib and gzip headers, recognised by themselves
    try:
        plain = inflater.decompress(body, REQUEST_BODY_BYTES_MAX + 1)
    except zlib.error as problem:
        raise CallerError("invalid_body", f"the body cannot be decompressed: {problem}") from None
    if len(plain) > REQUEST_BODY_BYTES_MAX:
        raise body_too_large()
    if not inflater.eof:
        raise CallerError("invalid_body", "the compressed body ends early")
    return plain


def body_too_large(bytes_max: int = REQUEST_BODY_BYTES_MAX) -> CallerError:
    megabytes = bytes_max // (1024 * 1024)
    return CallerError(
        "body_too_large", f"The body is larger than {megabytes} MB; split it.", status=413
    )
