"""An engine that sends exactly what a test wrote down, in the words of Triton's generate_stream."""

import asyncio
import json
from collections.abc import Awaitable, Callable

from tests.triton.scripted import Peer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunked(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(text="word ", tokens=1, reason="None", tokens_in=4, **extra):
    body = {
        "text_output": text,
        "num_input_tokens": tokens_in,
        "num_output_tokens": tokens,
        "finish_reason": reason,
    } | extra
    return chunked(b"data: " + json.dumps(body).encode() + b"\n\n")


def failure(text):
    return chunked(b"data: " + json.dumps({"error": text}).encode() + b"\n\n")


class Engine:
    """An upstream whose next behaviour a test sets."""

    def __init__(self) -> None:
        self.behave: Callable[[Peer], Awaitable[None]] = self._unset
        self.client_left = asyncio.Event()

    async def _unset(self, peer: Peer) -> None:
        raise AssertionError("the test did not say what the engine does")

    async def script(self, peer):
        while await peer.request():
            await self.behave(peer)

    def sends(self, *pieces, then="end"):
        async def behave(peer):
            await peer.send(HEAD, *pieces)
            if then == "end":
                await peer.send(END)
            elif then == "close":
                peer.close()
            elif then == "reset":
                peer.reset()
            elif then == "silence":
                await peer.gone()
                self.client_left.set()

        self.behave = behave
