"""A finished export as an answer that can be continued: Range, If-Range, ETag (RFC 9110).

The ETag is the file's digest, so a download that broke off goes on (`curl -C -`) if and only if it
is the same file. One range is served; several, or one in another unit, get the whole file.
"""

import re
from collections.abc import AsyncIterator, Iterator
from typing import IO, Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from meterplane.kernel.errors import CallerError
from meterplane.metering.exports import content
from meterplane.metering.exports.focus_version import VERSION
from meterplane.metering.exports.limits import BLOCK_BYTES
from meterplane.metering.exports.query import ExportQuery, stored_query
from meterplane.metering.models import Export

TYPES = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def filename(query: ExportQuery, owner: str) -> str:
    """What the file is called where it is saved; of FOCUS rows it says their version."""
    kind = f"focus-{VERSION}" if query.kind == "focus" else query.kind
    return f"{owner}-{kind}-{query.first_day}-{query.last_day}.{query.format}"


def file_response(request: HttpRequest, export: Export, owner: str) -> HttpResponseBase:
    """The file, or the part of it that is asked for. Raises `CallerError` `export_not_ready`."""
    if export.state != Export.State.DONE:
        raise CallerError(
            "export_not_ready",
            f"This export is {export.state}; there is a file once it is done.",
            status=409,
        )
    etag = f'"{export.sha256}"'
    first, last = _asked_range(request, export.bytes, etag)
    if first > last and export.bytes:
        response: HttpResponseBase = HttpResponse(status=416)
        response["Content-Range"] = f"bytes */{export.bytes}"
        return response
    whole = (first, last) == (0, export.bytes - 1)
    opening = content.opened(export.id)
    try:
        source = opening.__enter__()
    except FileNotFoundError:
        raise CallerError(
            "export_not_found", "The file is gone; ask for it again.", status=404
        ) from None
    blocks = _blocks(source, first, last + 1 - first, opening)
    response = streamed(request, blocks)
    response.status_code = 200 if whole else 206
    response["Content-Type"] = TYPES[export.format]
    response["Content-Length"] = str(last + 1 - first)
    if not whole:
        response["Content-Range"] = f"bytes {first}-{last}/{export.bytes}"
    response["Accept-Ranges"] = "bytes"
    response["ETag"] = etag
    attach(response, filename(stored_query(export.query), owner))
    return response


def attach(response: HttpResponseBase, name: str) -> None:
    """It is saved under this name, and no cache keeps it."""
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["Cache-Control"] = "private, no-store"


def streamed(request: HttpRequest, blocks: Iterator[bytes]) -> StreamingHttpResponse:
    """Blocks as they come. Under ASGI each is made in the request's own thread: Django would
    otherwise collect them all before the first is sent."""
    if isinstance(request, ASGIRequest):
        return StreamingHttpResponse(_each_in_a_thread(blocks))
    return StreamingHttpResponse(blocks)


async def _each_in_a_thread(blocks: Iterator[bytes]) -> AsyncIterator[bytes]:
    following = sync_to_async(lambda: next(blocks, None))
    try:
        while (block := await following()) is not None:
            yield block
    finally:
        if close := getattr(blocks, "close", None):
            await sync_to_async(close)()


def _blocks(source: IO[bytes], first: int, size: int, opening: Any) -> Iterator[bytes]:
    try:
        source.seek(first)
        while size > 0 and (block := source.read(min(BLOCK_BYTES, size))):
            size -= len(block)
            yield block
    finally:
        opening.__exit__(None, None, None)


def _asked_range(request: HttpRequest, size: int, etag: str) -> tuple[int, int]:
    """First and last byte to send; first > last if what is asked for is not there."""
    whole = (0, size - 1)
    found = _RANGE.fullmatch(request.headers.get("Range", "").strip())
    if found is None or request.headers.get("If-Range", etag) != etag:
        return whole
    first, last = found.groups()
    if first:
        end = min(int(last), size - 1) if last else size - 1
        return (0, size - 1) if last and int(last) < int(first) else (int(first), end)
    return (max(0, size - int(last)), size - 1) if last and int(last) else (1, 0) if last else whole
