"""Callers' messages on their way in: after the key, within a time, and together within a memory.

The size of a message is known only once it is here. So receiving one takes the room that the
largest would need, and gives back what it did not; what is here keeps its room until its call ends.
A tenant has a share of the room: who sends slowly makes nobody wait but itself.

Not known: how much of the next message of an open stream is here, since gRPC tells nothing of a
part. So open streams are bounded by their number.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import grpc

from meterplane.gateway.exchange import BODY_TIMEOUT_S
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.limits import REQUEST_BODY_BYTES_MAX

RECEIVE_S_MAX = BODY_TIMEOUT_S  # from the key to the last byte, waiting for room included
# Of one worker: 32 x 16 MB; read, parsed and written again a message is here about four times: 2 GB
ROOM_BYTES = 32 * REQUEST_BODY_BYTES_MAX
ROOM_OF_TENANT_BYTES = ROOM_BYTES // 4  # 8 being received at once; small ones take a moment each
# A stream that is silent may hold most of a message, until it has idled: of a tenant 256 x 16 MB.
STREAMS_OF_TENANT_MAX = 256
STREAMS_MAX = 4 * STREAMS_OF_TENANT_MAX

Context = Any  # grpc.aio has no types
_Waiting = tuple[UUID, int, "asyncio.Future[None]"]


class Room:
    """A number of bytes, or of anything, and each tenant's share of it.

    First come, first served, but who waits for its own share keeps nobody else waiting.
    """

    def __init__(self, total: int, share: int) -> None:
        self._total = total
        self._share = share
        self._taken = 0
        self._taken_by: Counter[UUID] = Counter()
        self._waiting: list[_Waiting] = []  # at most as many as there are calls

    @property
    def taken(self) -> int:
        """By all."""
        return self._taken

    async def take(self, tenant: UUID, size: int) -> None:
        """Wait until there is room, and take it."""
        if not self._waiting and self.take_now(tenant, size):
            return
        waiting = (tenant, size, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._let_in()
        try:
            await waiting[2]
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
                self._let_in()  # those behind may have waited for this one
            else:
                self.give_back(tenant, size)
            raise

    def take_now(self, tenant: UUID, size: int) -> bool:
        """Take it if there is room; False if there is none."""
        free = self._total - self._taken
        if size > free or self._taken_by[tenant] + size > self._share:
            return False
        self._taken += size
        self._taken_by[tenant] += size
        return True

    def give_back(self, tenant: UUID, size: int) -> None:
        """What was taken, or a part of it."""
        self._taken -= size
        self._taken_by[tenant] -= size
        if not self._taken_by[tenant]:
            del self._taken_by[tenant]
        if self._waiting:
            self._let_in()

    def _let_in(self) -> None:
        left: list[_Waiting] = []
        full = False
        for each in self._waiting:
            tenant, size, future = each
            if full or future.done():  # done: cancelled, and about to leave by itself
                left.append(each)
            elif self.take_now(tenant, size):
                future.set_result(None)
            else:
                left.append(each)
                # Nobody overtakes who waits for the room of all: the large would wait for ever.
                full = self._taken_by[tenant] + size <= self._share
        self._waiting = left


@contextlib.asynccontextmanager
async def only_message(context: Context, room: Room, tenant: UUID) -> AsyncIterator[bytes]:
    """The message of a call that has one, and its room while it is used.

    Raises `CallerError` 400 when there is none or another, 408 when it does not come in time;
    `WorldError` 503 when there is no room.
    """
    held = 0
    try:
        try:
            async with asyncio.timeout(RECEIVE_S_MAX):
                await room.take(tenant, REQUEST_BODY_BYTES_MAX)
                held = REQUEST_BODY_BYTES_MAX
                content = await _only(context)
        except TimeoutError:
            raise _late(held) from None
        room.give_back(tenant, held - len(content))
        held = len(content)
        yield content
    finally:
        room.give_back(tenant, held)


async def _only(context: Context) -> bytes:
    content = await context.read()
    if content is grpc.aio.EOF:
        raise CallerError("no_message", "The call ended before its message.")
    if await context.read() is not grpc.aio.EOF:
        raise CallerError("several_messages", "A call of this method has one message.")
    return bytes(content)


def _late(held: int) -> CallerError | WorldError:
    if held:
        return CallerError("request_timeout", "The message took too long to arrive.", status=408)
    return WorldError("no_room", "Too much is being received just now; try again.")
