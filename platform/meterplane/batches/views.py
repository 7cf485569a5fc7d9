"""`/v1/files` and `/v1/batches`. Thin: parse, call a verb or a query, show."""

import asyncio
from collections.abc import Callable
from typing import IO, Any
from uuid import UUID

import msgspec
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError

from meterplane.batches import (
    cancel,
    content,
    create,
    identifiers,
    queries,
    refusals,
    shapes,
    store,
)
from meterplane.batches.limits import (
    BATCHES_PAGE,
    BATCHES_PAGE_MAX,
    CREATE_BODY_BYTES_MAX,
    FILE_LIFE,
    FILES_PAGE_MAX,
    READ_BYTES,
    UPLOAD_BYTES_MAX,
)
from meterplane.batches.models import StoredFile
from meterplane.kernel.errors import CallerError
from tenants.callers import Caller
from tenants.edge import answers, as_json
from tenants.scoping import tenant_scope

UPLOAD_FIELDS = {"purpose", "expires_after[anchor]", "expires_after[seconds]"}


@answers("GET", "POST")
def files(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """Upload a file, or list them."""
    if request.method == "POST":
        return as_json(shapes.file(_upload(request, caller)))
    query = _query(request, {"after", "limit", "order", "purpose"})
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise refusals.invalid("invalid_order", "order must be 'asc' or 'desc'.", "order")
    limit = _limit(query, FILES_PAGE_MAX, FILES_PAGE_MAX)
    after = _after(query, identifiers.FILE)
    purpose = query.get("purpose")
    if purpose is not None and purpose not in StoredFile.Purpose.values:
        return as_json(shapes.page([], has_more=False))  # nobody can have put one here
    with tenant_scope(caller.tenant_id):
        rows, more = queries.files_page(
            caller, limit=limit, after=after, ascending=order == "asc", purpose=purpose
        )
    return as_json(shapes.page([shapes.file(row) for row in rows], has_more=more))


@answers("GET", "DELETE")
def file(request: HttpRequest, caller: Caller, file_id: str) -> HttpResponseBase:
    """One file, or its end."""
    parsed = identifiers.parse(identifiers.FILE, file_id)
    if request.method == "DELETE":
        store.delete_file(caller, parsed, file_id)
        return as_json({"id": file_id, "object": "file", "deleted": True})
    return as_json(shapes.file(_find_file(caller, parsed, file_id)))


@answers("GET")
def file_content(request: HttpRequest, caller: Caller, file_id: str) -> HttpResponseBase:
    """The bytes of a file, streamed."""
    row = _find_file(caller, identifiers.parse(identifiers.FILE, file_id), file_id)
    opening = content.opened(row.tenant_id, row.id)
    try:
        source = opening.__enter__()
    except FileNotFoundError:
        raise refusals.no_such_file(file_id) from None
    response = StreamingHttpResponse(
        _Blocks(source, lambda: opening.__exit__(None, None, None)),
        content_type="application/octet-stream",
    )
    response["Content-Length"] = str(row.size_bytes)
    response["Content-Disposition"] = f'attachment; filename="{row}.jsonl"'
    return response


@answers("GET", "POST")
def batches(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """Start a batch, or list them."""
    if request.method == "POST":
        made = create.create_batch(caller, create.wanted(_json(request)))
        return as_json(shapes.batch(made))
    query = _query(request, {"after", "limit"})
    limit = _limit(query, BATCHES_PAGE, BATCHES_PAGE_MAX)
    after = _after(query, identifiers.BATCH)
    with tenant_scope(caller.tenant_id):
        rows, more = queries.batches_page(caller, limit=limit, after=after)
    return as_json(shapes.page([shapes.batch(row) for row in rows], has_more=more))


@answers("GET")
def batch(request: HttpRequest, caller: Caller, batch_id: str) -> HttpResponseBase:
    """One batch."""
    with tenant_scope(caller.tenant_id):
        row = queries.batch_of(caller, identifiers.parse(identifiers.BATCH, batch_id))
    if row is None:
        raise refusals.no_such_batch(batch_id)
    return as_json(shapes.batch(row))


@answers("POST")
def batch_cancel(request: HttpRequest, caller: Caller, batch_id: str) -> HttpResponseBase:
    """Run no more of a batch."""
    parsed = identifiers.parse(identifiers.BATCH, batch_id)
    return as_json(shapes.batch(cancel.cancel_batch(caller, parsed, batch_id)))


@answers("GET", "POST", "DELETE")
def nowhere(request: HttpRequest, caller: Caller, path: str) -> HttpResponseBase:
    """Whatever else is asked of `/v1` here."""
    raise CallerError(
        "not_found", f"There is no /v1/{path[:80]} here; models are at the gateway.", status=404
    )


class _Blocks:
    """A file's bytes, a block at a time, each read in a thread: the event loop does not wait."""

    def __init__(self, source: IO[bytes], close: Callable[[], object]) -> None:
        self._source = source
        self.close = close  # Django calls it when the answer is over, also one nobody read

    def __aiter__(self) -> "_Blocks":
        return self

    async def __anext__(self) -> bytes:
        block = await asyncio.to_thread(self._source.read, READ_BYTES)
        if not block:
            raise StopAsyncIteration
        return block


def _find_file(caller: Caller, file_id: UUID | None, shown: str) -> StoredFile:
    with tenant_scope(caller.tenant_id):
        row = queries.file_of(caller, file_id)
    if row is None:
        raise refusals.no_such_file(shown)
    return row


def _upload(request: HttpRequest, caller: Caller) -> StoredFile:
    if request.content_type != "multipart/form-data":
        raise refusals.invalid(
            "invalid_content_type", "Send multipart/form-data with the fields file and purpose."
        )
    # A body in chunks has no length, which Django takes for an empty one. It is bounded by
    # `bounded_body`, and Django reads to the end of what arrived, whatever length it is told.
    request.META["CONTENT_LENGTH"] = request.META.get("CONTENT_LENGTH") or str(UPLOAD_BYTES_MAX)
    request.upload_handlers = [TemporaryFileUploadHandler(request)]
    try:
        form, uploads = request.POST, request.FILES
    except (MultiPartParserError, UnreadablePostError, SuspiciousOperation) as problem:
        raise refusals.invalid(
            "invalid_multipart", f"The multipart body cannot be read: {problem}."
        ) from None
    unknown = (form.keys() - UPLOAD_FIELDS) | (uploads.keys() - {"file"})
    if unknown:
        name = min(unknown)[:80]
        raise refusals.invalid("unknown_parameter", f"Unknown parameter: {name!r}.", name)
    purpose = form.get("purpose")
    if purpose is None:
        raise refusals.invalid("missing_required_parameter", "'purpose' is missing.", "purpose")
    if purpose != StoredFile.Purpose.BATCH:
        raise refusals.invalid(
            "purpose_not_offered",
            f"The purpose {purpose[:80]!r} is not offered here; use 'batch'.",
            "purpose",
        )
    uploaded = uploads.getlist("file")
    if len(uploaded) != 1 or not isinstance(uploaded[0], UploadedFile):
        raise refusals.invalid(
            "missing_required_parameter", "Send exactly one part 'file' with a file name.", "file"
        )
    [upload] = uploaded
    return store.store_file(caller, upload, filename=upload.name or "file", life=_upload_life(form))


def _upload_life(form: Any) -> Any:
    anchor, seconds = form.get("expires_after[anchor]"), form.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return FILE_LIFE
    whole = seconds is not None and seconds.isascii() and seconds.isdigit() and len(seconds) < 10
    return create.life(anchor, int(seconds) if whole else None, "expires_after")


def _json(request: HttpRequest) -> object:
    try:
        body = request.read(CREATE_BODY_BYTES_MAX + 1)
    except (UnreadablePostError, RequestDataTooBig):
        raise refusals.invalid("invalid_json", "The body did not arrive whole.") from None
    if len(body) > CREATE_BODY_BYTES_MAX:
        raise refusals.too_large(CREATE_BODY_BYTES_MAX)
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise refusals.invalid("invalid_json", f"The body is not JSON: {problem}.") from None


def _query(request: HttpRequest, known: set[str]) -> dict[str, str]:
    unknown = request.GET.keys() - known
    if unknown:
        name = min(unknown)[:80]
        raise refusals.invalid("unknown_parameter", f"Unknown parameter: {name!r}.", name)
    return {name: request.GET[name] for name in request.GET}


def _limit(query: dict[str, str], default: int, limit_max: int) -> int:
    text = query.get("limit", str(default))
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= limit <= limit_max:
        raise refusals.invalid(
            "invalid_limit", f"limit must be a number from 1 to {limit_max:,}.", "limit"
        )
    return limit


def _after(query: dict[str, str], prefix: str) -> UUID | None:
    text = query.get("after")
    if not text:
        return None
    after = identifiers.parse(prefix, text)
    if after is None:
        raise refusals.invalid(
            "invalid_cursor", f"after must be an id that begins with {prefix!r}.", "after"
        )
    return after
