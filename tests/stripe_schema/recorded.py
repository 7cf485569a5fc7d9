"""`python -m tests.stripe_schema.recorded FILE ...`: the sandbox, writing down what is said.

The command is `python -m stripe_sandbox` with the file of the record before its own arguments.
A line of JSON is written for every answer before its last byte leaves, so that whoever has the
answer finds the exchange in the file; for every event when it happens; and for every webhook
before it is posted. Nothing is judged here: the process stays as small and quick as the real one.
"""

import json
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, TypeAlias

from stripe_sandbox import __main__ as sandbox
from stripe_sandbox import webhooks
from stripe_sandbox.app import create_app
from stripe_sandbox.store import Document, Store

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Record:
    """A file of lines, one per thing said; threads may share it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def write(self, **line: Any) -> None:
        with self._lock:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


class Recorded:
    """The application, overheard."""

    def __init__(self, app: Any, record: Record) -> None:
        self._app = app
        self._record = record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked, said = bytearray(), bytearray()
        start: MutableMapping[str, Any] = {}

        async def hear() -> MutableMapping[str, Any]:
            message = await receive()
            asked.extend(message.get("body", b""))
            return message

        async def tell(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                said.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    self._write(scope, bytes(asked), start, bytes(said))
            await send(message)

        await self._app(scope, hear, tell)

    def _write(
        self, scope: Scope, asked: bytes, start: MutableMapping[str, Any], said: bytes
    ) -> None:
        transport = scope.get("sandbox.transport")
        if transport is not None and transport.is_closing():
            return  # the sandbox has hung up on purpose: this reaches nobody
        query = scope["query_string"].decode("latin-1")
        self._record.write(
            method=scope["method"],
            target=scope["raw_path"].decode("latin-1") + (f"?{query}" if query else ""),
            body=asked.decode(errors="replace"),
            status=start["status"],
            headers={
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in start["headers"]
            },
            answer=said.decode(errors="replace"),
        )


def main(arguments: list[str]) -> int:
    """Run the sandbox with everything overheard; its exit status."""
    record = Record(Path(arguments[0]))
    insert, post = Store.insert, webhooks.post

    def insert_and_tell(store: Store, document: Document, **named: Any) -> None:
        if document["object"] == "event":
            record.write(event=json.dumps({**document, "pending_webhooks": 0}))
        insert(store, document, **named)

    def tell_and_post(delivery: webhooks.Delivery, *more: Any) -> str | None:
        record.write(event=delivery.body.decode())
        return post(delivery, *more)

    Store.insert = insert_and_tell  # type: ignore[method-assign, assignment]
    webhooks.post = tell_and_post
    sandbox.create_app = lambda *given: Recorded(create_app(*given), record)  # type: ignore
    return sandbox.main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
