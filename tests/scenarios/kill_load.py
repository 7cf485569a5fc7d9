"""Callers that go on whatever is killed, and remember what each request came to.

Every attempt has a number, which travels as a tag: an event says which attempt it is of. A caller
keeps one connection and asks for one thing at a time, in turn an inference and a stream; whoever is
cut off or finds nobody there comes back. Written on bare sockets: callers share the two cores with
whatever they measure.
"""

import asyncio
import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

INFER_BODY = b'{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[1],"data":[1.0]}]}'
STREAM_TOKENS = 3
STREAM_BODY = json.dumps(
    {
        "model": "tiny-lm",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": STREAM_TOKENS,
    }
).encode()
ANSWER_WITHIN_S = 60
AGAIN_AFTER_S = 0.02
REFUSED_PAUSE_S = 0.05

End = Literal["unanswered", "refused", "cut", "done"]


@dataclass(slots=True)
class Attempt:
    """One request that left its caller.

    `unanswered`: not even a head came back. `cut`: a head did, and not the last byte. `pieces` are
    the pieces of text a stream's caller saw, `tokens` what it was told at the end.
    """

    stream: bool
    end: End = "unanswered"
    status: int = 0
    request_id: str = ""
    pieces: int = 0
    tokens: tuple[int, int] | None = None


@dataclass
class Load:
    """`callers` of one key of one gateway, in a thread, while the `with` block lasts."""

    url: str
    key: str
    callers: int
    attempts: list[Attempt] = field(default_factory=list)
    done: int = 0
    took_s: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Load":
        self._began = time.monotonic()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(ANSWER_WITHIN_S + 10)
        self.took_s = time.monotonic() - self._began
        assert not self._thread.is_alive(), "callers that do not come to an end"

    async def _run(self) -> None:
        await asyncio.gather(*(self._call() for _ in range(self.callers)))

    async def _call(self) -> None:
        parts = urlsplit(self.url)
        writer: asyncio.StreamWriter | None = None
        while not self._stop.is_set():
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            except OSError:
                await asyncio.sleep(AGAIN_AFTER_S)
                continue
            number = len(self.attempts)
            attempt = Attempt(stream=number % 2 == 1)
            self.attempts.append(attempt)
            try:
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    writer.write(self._request(number, attempt.stream))
                    await _answer(reader, attempt)
            except (OSError, EOFError, TimeoutError):
                writer.close()
                writer = None
            if attempt.end == "done":
                self.done += 1
            elif attempt.end == "refused":
                await asyncio.sleep(REFUSED_PAUSE_S)
        if writer is not None:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _request(self, number: int, stream: bool) -> bytes:
        path, body = (
            ("/v1/chat/completions", STREAM_BODY)
            if stream
            else ("/v2/models/identity/infer", INFER_BODY)
        )
        return (
            f"POST {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {self.key}\r\n"
            f"Content-Type: application/json\r\nx-meterplane-tags: attempt={number}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body


async def _answer(reader: asyncio.StreamReader, attempt: Attempt) -> None:
    """Read an answer to its last byte. Raises what the connection raises when it is cut."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
    attempt.status = int(first.split(" ", 2)[1])
    attempt.request_id = headers.get("x-request-id", "")
    attempt.end = "cut" if attempt.status == 200 else "refused"
    if headers.get("transfer-encoding") == "chunked":
        ended = await _stream(reader, attempt)
    else:
        await reader.readexactly(int(headers["content-length"]))
        ended = True
    if attempt.status == 200 and ended:
        attempt.end = "done"
    if headers.get("connection") == "close":
        raise EOFError


async def _stream(reader: asyncio.StreamReader, attempt: Attempt) -> bool:
    """True if the stream said it was whole. One that only ends was cut."""
    whole, rest = False, b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        rest += (await reader.readexactly(size + 2))[:-2]
        *events, rest = rest.split(b"\n\n")
        for event in events:
            if event == b"data: [DONE]":
                whole = True
            elif event.startswith(b"data: "):
                _piece(json.loads(event[6:]), attempt)
    await reader.readexactly(2)
    return whole


def _piece(told: dict, attempt: Attempt) -> None:
    if told.get("usage"):
        attempt.tokens = (told["usage"]["prompt_tokens"], told["usage"]["completion_tokens"])
    for choice in told.get("choices", ()):
        if choice["delta"].get("content"):
            attempt.pieces += 1
