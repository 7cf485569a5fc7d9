"""A bound on every request body of the web process, held while it arrives.

Django's ASGI handler writes a whole body to disk before any view is asked, so a bound in a view
comes too late. Uploads of files have their own; and who has no well-formed API key uploads nothing.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from meterplane.batches import refusals
from meterplane.batches.limits import UPLOAD_BYTES_MAX, WEB_BODY_BYTES_MAX
from meterplane.kernel.errors import CallerError
from meterplane.kernel.ids import uuid7
from tenants import openai_errors
from tenants.callers import secret_of

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[..., Awaitable[None]]  # ASGI's scope, receive and send

UPLOADS = "/v1/files"


class _TooLarge(Exception):
    """More bytes arrived than this path takes."""


def bounded(application: Application) -> Application:
    """The application, never handed more of a body than its path takes."""

    async def guarded(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        headers = dict(scope["headers"])
        bytes_max = WEB_BODY_BYTES_MAX
        try:
            if scope["path"] == UPLOADS and scope["method"] == "POST":
                secret_of(headers.get(b"authorization", b"").decode("latin-1"))
                bytes_max = UPLOAD_BYTES_MAX
            declared = headers.get(b"content-length", b"0")
            if len(declared) > 12 or (declared.isdigit() and int(declared) > bytes_max):
                raise refusals.too_large(bytes_max)
        except CallerError as refusal:
            await _refuse(send, refusal)
            return
        arrived = 0

        async def counted() -> Message:
            nonlocal arrived
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > bytes_max:
                raise _TooLarge
            return message

        try:
            await application(scope, counted, send)
        except _TooLarge:
            await _refuse(send, refusals.too_large(bytes_max))

    return guarded


async def _refuse(send: Send, refusal: CallerError) -> None:
    body = msgspec.json.encode(openai_errors.body(refusal))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        (b"x-request-id", str(uuid7()).encode()),
    ]
    headers += [
        (name.lower().encode(), text.encode())
        for name, text in openai_errors.headers(refusal).items()
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
