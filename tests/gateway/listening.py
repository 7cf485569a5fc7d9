"""A server of chats that keeps what it was asked, heads and all."""

import json
from contextlib import asynccontextmanager

from tests.gateway.deployments import ALIVE, CHUNKS, completion, delta, totals
from tests.triton.scripted import Peer, scripted


class Listening:
    """`heard` has every request, probes aside; each is answered with 4 tokens in and 3 out."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.url = ""

    async def script(self, peer: Peer) -> None:
        while request := await peer.request():
            if request.startswith(b"GET"):
                await peer.send(ALIVE)
                continue
            self.heard.append(request)
            body = json.loads(request.partition(b"\r\n\r\n")[2])
            if body.get("stream"):
                await peer.send(CHUNKS, delta(), delta(), totals(4, 3), pause_s=0.01)
            else:
                await peer.send(completion())


@asynccontextmanager
async def listening():
    """One such server."""
    made = Listening()
    async with scripted(made.script) as server:
        made.url = server.url
        yield made
