"""Engines that answer what a test wrote down for each request, and remember what they were asked.

And tokenizers for them: a word of a few letters is a token, so that a test can count with its eyes.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.gateway.engine import chunked
from tests.triton.scripted import Peer

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
Answer = Sequence[bytes]


class Asked:
    """One request as a server received it."""

    def __init__(self, request: bytes) -> None:
        head, _, body = request.partition(b"\r\n\r\n")
        line, *headers = head.decode().split("\r\n")
        self.path = line.split(" ")[1]
        self.headers = {
            name.lower(): value.strip()
            for name, _, value in (header.partition(":") for header in headers)
        }
        self.body: dict[str, Any] = json.loads(body) if body else {}


class Double:
    """A server; `answers` turns a request into the pieces that are written, each by itself."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answers: Callable[[Asked], Answer] = lambda asked: []

    async def script(self, peer: Peer) -> None:
        while request := await peer.request():
            if request.startswith(b"GET"):
                await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                continue
            asked = Asked(request)
            self.asked.append(asked)
            await peer.send(*self.answers(asked))

    def says(self, *pieces: bytes) -> None:
        """The same to everybody."""
        self.answers = lambda asked: pieces


def event(body: dict[str, Any] | bytes) -> bytes:
    """A server-sent event, as a chunk of its own."""
    data = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
    return chunked(b"data: " + data + b"\n\n")


def stream(*bodies: dict[str, Any] | bytes) -> list[bytes]:
    """A whole stream of events."""
    return [EVENTS, *map(event, bodies), END]


def whole(body: dict[str, Any] | bytes, status: str = "200 OK") -> list[bytes]:
    """A plain answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    return [head.encode() + b"\r\n\r\n" + content]


def words(text: str) -> int:
    """The tokens of `make_tokenizer` in a text without special ones."""
    return len(text.split())


def make_tokenizer(folder: Path, *, begins: bool = False, **config: Any) -> None:
    """A tokenizer in a folder below TOKENIZERS_DIR. `begins`: a prompt starts with a `<s>`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    known = ("<unk>", "<s>", "one", "two", "three", "four", "user:", "assistant:", "hi")
    made = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(known)}, unk_token="<unk>")
    )
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if begins:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    folder.mkdir(parents=True)
    made.save(str(folder / "tokenizer.json"))
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
