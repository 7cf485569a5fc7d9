"""One `ModelStreamInfer`: each message admitted, forwarded and settled by itself.

Guarantees: at most `MESSAGES_AT_ONCE` are under way, and no further one is read until one has
ended; a failure is that message's `error_message` and the stream goes on; when the caller leaves or
its deadline passes, every message is cancelled upstream and settled before the stream is given up.
A stream that we end, of a caller who is still there, ends with a status.
When the key may not infer any more each message is told so, and then the stream, idle or not.

Order is Triton's: a message with one response is answered in its turn, after the ones before it; a
message with several (a decoupled model) is answered as its responses come.
"""

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import Any, Literal
from uuid import UUID

import grpc

from meterplane.gateway import patience
from meterplane.gateway.exchange import ClientGone
from meterplane.gateway.kserve_grpc.call import Call, Cut
from meterplane.gateway.kserve_grpc.infer import Metered, Streamed
from meterplane.gateway.kserve_grpc.infer_work import ENABLE_FINAL, FINAL
from meterplane.gateway.kserve_grpc.messages import (
    Message,
    ModelInferRequest,
    ModelStreamInferResponse,
    read,
)
from meterplane.gateway.kserve_grpc.receive import Room
from meterplane.gateway.pipeline import go_on_after_cancel
from meterplane.gateway.revocation import cut_off
from meterplane.gateway.run import Run
from meterplane.kernel.errors import CallerError, WorldError

MESSAGES_AT_ONCE = 64  # of one stream
IDLE_S_MAX = 600.0  # a stream on which nothing was asked for
SLOW_READER_S_MAX = 60.0  # for one response to be taken

Context = Any  # grpc.aio has no types


class Conversation:
    """One stream. A `Cuttable` without a run of its own: its messages have theirs."""

    run: Run | None = None

    def __init__(
        self,
        context: Context,
        metered: Metered,
        headers: dict[bytes, bytes],
        room: Room,
        tenant: UUID,
    ) -> None:
        self._room = room
        self._tenant = tenant
        self._context = context
        self._metered = metered
        self._headers = headers
        self._writing = asyncio.Lock()
        self._write: asyncio.Task[bool] | None = None
        self._slots = asyncio.Semaphore(MESSAGES_AT_ONCE)
        self._calls: dict[asyncio.Task[None], Call] = {}
        self._turns: list[asyncio.Future[None]] = []
        self._task = asyncio.current_task()
        self._gone = False  # the caller takes nothing any more
        self._too_slow = False  # or not in time
        self._ending = False
        self.refusal: CallerError | None = None

    async def converse(self, why: Callable[[], Cut]) -> None:
        """Answer messages until the caller sends no more.

        Raises `WorldError` when it idles, `CallerError` when the key may not infer any more.
        """
        try:
            while (content := await self._next()) is not None:
                turn = asyncio.get_running_loop().create_future()
                self._turns.append(turn)
                task = asyncio.create_task(self._answer(content, turn))
                task.add_done_callback(functools.partial(self._ended, len(content)))
                # Its first step makes its call: until then nothing of it is to be cancelled.
                await asyncio.sleep(0)
            await self._rest()
        except BaseException:  # cancelled, by whomever, or a stream that cannot be read any more
            self._ending = True
            if self.refusal is not None:
                go_on_after_cancel()
                for call in self._calls.values():
                    cut_off(call, self.refusal)
                await self._rest()
                raise self.refusal from None
            self._cut("left" if self._gone else why())
            await self._rest()
            if self._write is not None:
                self._write.cancel()
                await asyncio.wait({self._write})
            if self._too_slow:
                raise WorldError(
                    "slow_reader",
                    "Responses of this stream were not taken in time; what was asked for has"
                    " ended.",
                    status=504,
                ) from None
            raise

    def end_early(self, why: Literal["refused"]) -> bool:
        """Take no further message; False when the stream is ending already."""
        if self._ending or self._task is None:
            return False
        self._ending = True
        return self._task.cancel()

    async def _next(self) -> bytes | None:
        """The next message, once one may begin, in its room; None when there will be none."""
        await self._slots.acquire()
        reading = asyncio.ensure_future(self._context.read())
        try:
            while not (await asyncio.wait({reading}, timeout=IDLE_S_MAX))[0]:
                if not self._calls:
                    raise WorldError(
                        "idle_stream", "Nothing was asked for on this stream.", status=504
                    )
            content = reading.result()
        finally:
            reading.cancel()
        if content is grpc.aio.EOF:
            return None
        # The room is had when others end, which their own time sees to.
        await self._room.take(self._tenant, len(content))
        return bytes(content)

    async def _rest(self) -> None:
        """Until no message is under way. Each settles, which its journal bounds."""
        while self._calls:
            await asyncio.wait(set(self._calls))

    def _cut(self, why: Cut) -> None:
        for task, call in self._calls.items():
            if why:
                call.end_early(why)
            else:
                task.cancel()

    def _ended(self, size: int, task: "asyncio.Task[None]") -> None:
        self._room.give_back(self._tenant, size)
        self._calls.pop(task, None)
        self._slots.release()

    async def _answer(self, content: bytes, turn: "asyncio.Future[None]") -> None:
        call = Call("ModelStreamInfer", self._headers, self._metered.parts)
        call.patience_s = patience.until(self._context.time_remaining())
        task = asyncio.current_task()
        if task is not None:
            self._calls[task] = call
        streamed = Streamed(lambda *response: self._deliver(turn, *response))
        try:
            serving = self._metered.serve(
                call, content, "grpc.stream_infer", streamed.once, lambda: call.cut
            )
            failure = await call.conclude(serving)
            if failure is not None:
                await self._tell(call, content, failure, streamed.refused, turn)
        except (ClientGone, asyncio.CancelledError):
            return
        finally:
            self._release(turn)

    async def _tell(
        self,
        call: Call,
        content: bytes,
        failure: CallerError | WorldError,
        refused: Message | None,
        turn: "asyncio.Future[None]",
    ) -> None:
        """A message's failure, as Triton tells it; its end too, for who asked to be told ends."""
        asked = _lenient(content)
        message = ModelStreamInferResponse()
        if refused is not None:
            message.CopyFrom(refused)
        message.error_message = failure.message
        message.infer_response.id = asked.id
        await self._deliver(turn, message.SerializeToString(), not call.begun, True)
        goes_on = FINAL in message.infer_response.parameters
        if goes_on and asked.parameters[ENABLE_FINAL].bool_param:
            end = ModelStreamInferResponse()
            end.infer_response.CopyFrom(message.infer_response)
            end.infer_response.parameters[FINAL].bool_param = True
            await self._deliver(turn, end.SerializeToString(), False, True)

    async def _deliver(
        self, turn: "asyncio.Future[None]", content: bytes, first: bool, final: bool
    ) -> None:
        """A response to the caller. Raises `ClientGone` when it is not taken."""
        if first and final:
            earlier = self._turns[: self._turns.index(turn)]
            if earlier:
                await asyncio.wait(set(earlier))
        elif first:
            self._release(turn)
        await self._writing.acquire()
        if self._gone:
            self._writing.release()
            raise ClientGone
        # A write that was begun is ended, whatever becomes of its message: until it is, there is
        # no place for another, nor for the stream's end.
        self._write = asyncio.create_task(self._write_now(content))
        if not await asyncio.shield(self._write):
            raise ClientGone

    async def _write_now(self, content: bytes) -> bool:
        """False when it was not taken, and nothing is any more."""
        try:
            async with asyncio.timeout(SLOW_READER_S_MAX):
                await self._context.write(content)
        except TimeoutError:
            self._too_slow = True
        except (grpc.RpcError, grpc.aio.UsageError, grpc.aio.InternalError):
            pass  # the caller has left
        else:
            return True
        finally:
            self._writing.release()
        self._give_up()
        return False

    def _release(self, turn: "asyncio.Future[None]") -> None:
        if not turn.done():
            turn.set_result(None)
            self._turns.remove(turn)

    def _give_up(self) -> None:
        self._gone = True
        if self._task is not None and not self._ending:
            self._ending = True
            self._task.cancel()


def _lenient(content: bytes) -> Message:
    """The message, or an empty one."""
    with contextlib.suppress(CallerError):
        return read(ModelInferRequest, content)
    return ModelInferRequest()
