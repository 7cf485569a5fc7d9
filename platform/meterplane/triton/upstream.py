"""An inference server's answer: whole, or still coming."""

from collections.abc import AsyncIterator

import msgspec

from meterplane.kernel.limits import UPSTREAM_RESPONSE_BYTES_MAX
from meterplane.triton.connection import Connection
from meterplane.triton.failures import TritonBroken
from meterplane.triton.server import Server


class Response(msgspec.Struct, frozen=True):
    """A whole answer. Header names are lower case; `retries` servers were tried before."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    server: str
    retries: int = 0


class Upstream:
    """An answer whose head is there. Whoever has it closes it, whatever happens.

    Closing before the end aborts the connection at once, and that cancels the request on the
    server. A failed or cancelled `block` or `read` has closed it already.
    """

    __slots__ = ("_connection", "_open", "_server", "headers", "retries", "status")

    def __init__(self, connection: Connection, server: Server, retries: int) -> None:
        self._connection = connection
        self._server = server
        self._open = True
        self.status = connection.status
        self.headers = connection.headers
        self.retries = retries

    @property
    def server(self) -> str:
        """Its URL, as it is configured."""
        return self._server.url

    async def block(self) -> bytes | None:
        """All bytes of the body that have arrived since the last block; None at its end.

        Waits for the first of them when there are none. Raises `TritonTimeout` or `TritonBroken`;
        what came before a break is given out before it is raised.
        """
        if not self._open:
            return None
        connection = self._connection
        if not connection.chunks:
            try:
                if (waiter := connection.more()) is not None:
                    await waiter
            except BaseException:
                self.close()
                raise
            if not connection.chunks:
                self.close()
                return None
        return connection.take()

    async def read(self, bytes_max: int | None = None) -> bytes:
        """The rest of the body. Raises `TritonBroken` when it is larger than `bytes_max`."""
        bytes_max = UPSTREAM_RESPONSE_BYTES_MAX if bytes_max is None else bytes_max
        parts: list[bytes] = []
        size = 0
        while (block := await self.block()) is not None:
            parts.append(block)
            size += len(block)
            if size > bytes_max:
                self.close()
                raise TritonBroken(f"it is larger than {bytes_max} bytes")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        while (block := await self.block()) is not None:
            yield block

    def close(self) -> None:
        """Return the connection if the answer was read to the end, else abort. Idempotent."""
        if self._open:
            self._open = False
            self._server.finish(self._connection)
