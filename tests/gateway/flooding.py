"""Many connections of one caller that ask as fast as they are answered: a program, and its parts.

`python -m tests.gateway.flooding HOST:PORT PATH SECRET CONNECTIONS SECONDS BODY`. Whoever is told
to come later does so, after the time they were told. Prints how often each status was answered.
"""

import asyncio
import sys
import time
from collections import Counter


class Caller:
    """One connection, kept open."""

    def __init__(self, address: str, path: str, secret: str, body: bytes) -> None:
        self._host, _, port = address.partition(":")
        self._port = int(port)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._request = (
            f"POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {secret}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    async def ask(self) -> tuple[int, int]:
        """The status, and after how many seconds to come back."""
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        self._writer.write(self._request)
        lines = (await self._reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines[1:] if b": " in line)
        await self._reader.readexactly(int(headers[b"content-length"]))
        return int(lines[0].split()[1]), int(headers.get(b"retry-after", b"0"))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


async def ask_until(caller: Caller, until: float, note) -> None:
    """Ask again and again; `note(status, seconds)` of each answer."""
    while time.monotonic() < until:
        began = time.monotonic()
        status, after_s = await caller.ask()
        note(status, time.monotonic() - began)
        await asyncio.sleep(min(after_s, max(0.0, until - time.monotonic())))


async def flood(address: str, path: str, secret: str, body: bytes, many: int, s: float) -> Counter:
    """How often each status was answered to so many connections in so many seconds."""
    statuses: Counter[int] = Counter()
    callers = [Caller(address, path, secret, body) for _ in range(many)]
    until = time.monotonic() + s
    asking = [
        asyncio.ensure_future(ask_until(each, until, lambda status, _: statuses.update([status])))
        for each in callers
    ]
    await asyncio.wait(asking, timeout=s)
    for each in asking:
        each.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    for caller in callers:
        caller.close()
    return statuses


if __name__ == "__main__":
    address, path, secret, many, seconds, body = sys.argv[1:]
    told = asyncio.run(flood(address, path, secret, body.encode(), int(many), float(seconds)))
    print(dict(sorted(told.items())))
