"""`GET /.well-known/jwks.json`: the keys that receipts are verified with.

The control plane lists them; asking needs no key. So it is asked once in `HELD_S`, not for each who
asks, and while it cannot be reached what was read last is told: a key that was listed stays good.
"""

import time
from urllib.parse import urlsplit

from meterplane.gateway.control_proxy import Answer, away, connect, no_control_plane
from meterplane.gateway.exchange import JSON, Exchange
from meterplane.gateway.pipeline import Parts
from meterplane.gateway.shared_reads import SharedReads
from meterplane.kernel.errors import WorldError

PATH = "/.well-known/jwks.json"
HELD_S = 60.0
AGAIN_S = 5.0  # after a read that failed
KEY_SET_BYTES_MAX = 256 * 1024  # a thousand keys
_CACHED = b"cache-control: public, max-age=300\r\n"

_held: dict[str, tuple[float, bytes]] = {}  # by the control plane's address: there is one


async def tell(exchange: Exchange, parts: Parts) -> None:
    """Answer with the key set. Raises `WorldError` while it never could be read."""
    if not parts.control_url:
        raise no_control_plane()
    read_at, found = _held.get(parts.control_url, (-HELD_S, b""))
    now = time.monotonic()
    if now - read_at >= HELD_S:
        try:
            found = await _reads.read(parts.control_url)
        except WorldError:
            if not found:
                raise
            _held[parts.control_url] = (now - HELD_S + AGAIN_S, found)
    exchange.answer(200, JSON + _CACHED, found)


async def _read(url: str) -> bytes:
    address = urlsplit(url)
    reader, writer = await connect(url)
    try:
        head = f"GET {address.path}{PATH} HTTP/1.1\r\nhost: {address.netloc.rpartition('@')[2]}\r\n"
        writer.write(head.encode() + b"accept: application/json\r\nconnection: close\r\n\r\n")
        answer = Answer(reader)
        await answer.read_head_in_time()
        found = b""
        while block := await answer.block():
            found += block
            if len(found) > KEY_SET_BYTES_MAX:
                raise away()
    finally:
        writer.close()
    if answer.status != 200:
        raise away()
    _held[url] = (time.monotonic(), found)
    return found


_reads = SharedReads(_read)
