"""`python -m tests.stripe_schema.recorded FILE ...`: the sandbox, writing down what is said.

The command is `python -m stripe_sandbox` with the file of the record before its own arguments.
A line of JSON is written for every answer before its last byte leaves, so that whoever has the
answer finds the exchange in the file; for every event when it happens; and for every webhook
before it is posted. Nothing is judged here: the process stays as small and quick as the real one.

With `--each-shape-once` a run of any length leaves a file of bounded size: of lines that are alike
but for their ids and numbers the first is written (`shape_of`). `--arrivals FILE` writes down when
each call of the API came in, by this process's monotonic clock.
"""

import argparse
import json
import re
import string
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote

from stripe_sandbox import __main__ as sandbox
from stripe_sandbox import webhooks
from stripe_sandbox.app import create_app
from stripe_sandbox.store import Document, Store

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


# What is in an id or a number, and neither in a name nor in a word that Stripe means something by.
_VARIES = re.compile("[0-9A-Z]")
_NO_LETTERS = str.maketrans("", "", string.ascii_letters + string.digits)
_VARYING_WORD = re.compile(r"(?<![0-9A-Za-z_])(?:[a-z_][a-z_-]*+)?[0-9A-Z][0-9A-Za-z_-]*+")


def shape_of(line: Mapping[str, Any]) -> int:
    """The same for lines that are alike but for the ids and numbers in them.

    Names, words in small letters, structure and signs count; of a text with a digit or a capital
    letter in it, such as an id or what describes a line, only its punctuation does.
    """
    asked = unquote(f"{line.get('target', '')} {line.get('body', '')}")
    said = line.get("answer") or line.get("event") or ""
    texts = [
        text.translate(_NO_LETTERS) if _VARIES.search(text) else text for text in said.split('"')
    ]
    names = (*line.get("headers", ()), line.get("method"), line.get("status"))
    return hash((*names, _VARYING_WORD.sub("", asked), *texts))


class Record:
    """A file of lines, one per thing said; threads may share it."""

    def __init__(self, path: Path, *, each_shape_once: bool = False) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()
        self._shapes: set[int] | None = set() if each_shape_once else None

    def write(self, **line: Any) -> None:
        with self._lock:
            if self._shapes is not None:
                shape = shape_of(line)
                if shape in self._shapes:
                    return
                self._shapes.add(shape)
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


class Arrivals:
    """A file with a line for each call of the API: seconds, verb and path."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def note(self, scope: Scope) -> None:
        """It is here now. Called in the event loop alone."""
        came = time.monotonic()
        path = scope["raw_path"].decode("latin-1")
        if path.startswith(("/v1/", "/v2/")):
            self._file.write(f"{came:.6f} {scope['method']} {path}\n")
            self._file.flush()


class Recorded:
    """The application, overheard."""

    def __init__(self, app: Any, record: Record, arrivals: Arrivals | None) -> None:
        self._app = app
        self._record = record
        self._arrivals = arrivals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._arrivals is not None:
            self._arrivals.note(scope)
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
    parser = argparse.ArgumentParser(prog="tests.stripe_schema.recorded", allow_abbrev=False)
    parser.add_argument("record", type=Path)
    parser.add_argument("--each-shape-once", action="store_true")
    parser.add_argument("--arrivals", type=Path)
    asked, of_the_sandbox = parser.parse_known_args(arguments)
    record = Record(asked.record, each_shape_once=asked.each_shape_once)
    arrivals = Arrivals(asked.arrivals) if asked.arrivals else None
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
    overheard = lambda *given: Recorded(create_app(*given), record, arrivals)  # noqa: E731
    sandbox.create_app = overheard  # type: ignore[assignment]
    return sandbox.main(of_the_sandbox)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
