"""The methods of `inference.GRPCInferenceService` that exist here; every other is UNIMPLEMENTED.

Guarantees: a failure is a status with a sentence, never a stack trace; the key comes in the
metadata `authorization: Bearer ...`, as over HTTP, and before it is found good no message is read.
A stream is refused as a whole only for its key, or when there are too many.

To gRPC's Python server every method is one of streams, which is the same on the wire: of a method
that is not, it reads the whole message before it tells us of the call, and waits for ever.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import unquote

import grpc

from meterplane.gateway import patience
from meterplane.gateway.addresses import caller_address
from meterplane.gateway.authenticate import authenticate, bearer_digest
from meterplane.gateway.callers import Caller
from meterplane.gateway.exchange import ClientGone
from meterplane.gateway.kserve_grpc.about import About, Tell, TellAnybody
from meterplane.gateway.kserve_grpc.call import Call, Cut
from meterplane.gateway.kserve_grpc.codes import code_of
from meterplane.gateway.kserve_grpc.conversation import Context, Conversation
from meterplane.gateway.kserve_grpc.infer import Metered, Unary
from meterplane.gateway.kserve_grpc.receive import (
    ROOM_BYTES,
    ROOM_OF_TENANT_BYTES,
    STREAMS_MAX,
    STREAMS_OF_TENANT_MAX,
    Room,
    only_message,
)
from meterplane.gateway.kserve_grpc.servers import SERVICE, GrpcServers
from meterplane.gateway.pipeline import Parts
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.limits import REFUSING_POLICY_AGE_S_MAX

# A caller's clock runs since before its call was here, so at its deadline it leaves before ours.
DEADLINE_SLACK_S = 0.25
ABORT_S_MAX = 10.0  # for a status to be taken

Handle = Callable[[Any, Context], Coroutine[Any, Any, bytes]]
Unanswered = Callable[[Call, dict[bytes, bytes], Context], Coroutine[Any, Any, bytes]]


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Calls of one worker. `stopping`: what is cancelled from now on is cancelled by us."""

    def __init__(self, parts: Parts, servers: GrpcServers) -> None:
        self.stopping = False
        self._running: set[asyncio.Task[Any]] = set()
        self.parts = parts
        self._servers = servers
        self._room = Room(ROOM_BYTES, ROOM_OF_TENANT_BYTES)
        self._streams = Room(STREAMS_MAX, STREAMS_OF_TENANT_MAX)
        about = About(parts, servers)
        anybody: dict[str, TellAnybody] = {
            "ServerLive": about.server_live,
            "ServerReady": about.server_ready,
            "ServerMetadata": about.server_metadata,
        }
        keyed: dict[str, Tell] = {
            "ModelReady": about.model_ready,
            "ModelMetadata": about.model_metadata,
        }
        handlers: dict[str, Handle] = {
            name: self._teller(name, _unread(tell)) for name, tell in anybody.items()
        }
        handlers |= {name: self._teller(name, self._read(tell)) for name, tell in keyed.items()}
        handlers["ModelInfer"] = self._infer
        self._handlers = {
            f"/{SERVICE}/{name}": grpc.stream_unary_rpc_method_handler(handle)
            for name, handle in handlers.items()
        } | {f"/{SERVICE}/ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self._stream)}
        self._unknown = grpc.stream_stream_rpc_method_handler(_not_here)

    def service(self, details: Any) -> Any:
        """The handler of a method."""
        return self._handlers.get(details.method, self._unknown)

    @property
    def running(self) -> int:
        """Calls under way, a stream being one."""
        return len(self._running)

    async def cut(self, within_s: float) -> None:
        """Cancel what still runs, and wait until it is settled."""
        self.stopping = True
        running = set(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=within_s)

    def _note_running(self) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _teller(self, name: str, answer: Unanswered) -> Handle:
        async def handle(messages: Any, context: Context) -> bytes:
            headers = _headers(context)
            call = Call(name, headers, self.parts)
            told: list[bytes] = []

            async def answering() -> None:
                try:
                    told.append(await answer(call, headers, context))
                except asyncio.CancelledError:
                    self._note_left(call, context)
                    raise

            failure = await call.conclude(answering())
            if failure is not None:
                await self._refuse(context, call, failure)
            return told[0]

        return handle

    def _read(self, tell: Tell) -> Unanswered:
        """For what needs a key and a message."""

        async def answer(call: Call, headers: dict[bytes, bytes], context: Context) -> bytes:
            digest = bearer_digest(headers.get(b"authorization"), self.parts.pepper)
            policy = await authenticate(digest, self.parts.policies, REFUSING_POLICY_AGE_S_MAX)
            async with only_message(context, self._room, policy.tenant_id) as content:
                found: bytes = (await tell(content, policy)).SerializeToString()
            return found

        return answer

    async def _infer(self, messages: Any, context: Context) -> bytes:
        self._note_running()
        headers = _headers(context)
        call = Call("ModelInfer", headers, self.parts)
        unary = Unary()

        def why() -> Cut:
            return call.cut or self._why(context)

        async def answering() -> None:
            metered = self._metered(headers, context)
            try:
                policy = await authenticate(metered.digest, self.parts.policies)
                async with only_message(context, self._room, policy.tenant_id) as content:
                    call.patience_s = patience.until(context.time_remaining())
                    await metered.serve(call, content, "grpc.infer", unary.once, why)
            except asyncio.CancelledError:
                self._note_left(call, context)
                raise

        try:
            failure = await call.conclude(answering())
        except ClientGone:
            raise asyncio.CancelledError from None
        except asyncio.CancelledError:
            await self._give_up(context)
        if failure is not None:
            await self._refuse(context, call, failure)
        context.set_trailing_metadata(_told_of(call))
        return unary.content

    async def _stream(self, messages: Any, context: Context) -> None:
        self._note_running()
        headers = _headers(context)
        try:
            metered = self._metered(headers, context)
            policy = await authenticate(metered.digest, self.parts.policies)
            tenant = policy.tenant_id
            if not self._streams.take_now(tenant, 1):
                raise _too_many_streams()
            conversation = Conversation(context, metered, headers, self._room, tenant)
            self.parts.open_runs.note(metered.digest, policy, conversation)
            try:
                await conversation.converse(lambda: self._why(context))
            finally:
                self.parts.open_runs.forget(metered.digest, conversation)
                self._streams.give_back(tenant, 1)
        except (CallerError, WorldError) as failure:
            self.parts.metrics.refused("grpc", failure.code)
            await _abort(context, code_of(failure), failure.message)
        except asyncio.CancelledError:
            await self._give_up(context)

    async def _give_up(self, context: Context) -> None:
        """End a call that was cancelled, and settled: by us, the caller is told why."""
        if not self.stopping:
            raise asyncio.CancelledError
        await _abort(context, grpc.StatusCode.UNAVAILABLE, "The gateway is restarting; try again.")

    def _metered(self, headers: dict[bytes, bytes], context: Context) -> Metered:
        """Raises `CallerError` 401. A batch's pass is not taken: its lines go over HTTP."""
        digest = bearer_digest(headers.get(b"authorization"), self.parts.pepper)
        address = caller_address(
            _peer(context), headers.get(b"x-forwarded-for"), self.parts.trusted_proxies
        )
        return Metered(self.parts, self._servers, Caller(digest, address=address))

    def _note_left(self, call: Call, context: Context) -> None:
        """A call that was cancelled before it was admitted: by its caller, or by us."""
        if self._why(context):
            call.cut = "left"

    def _why(self, context: Context) -> Cut:
        """Why a call was cancelled by gRPC."""
        if self.stopping:
            return ""
        left_s = context.time_remaining()
        return "late" if left_s is not None and left_s <= DEADLINE_SLACK_S else "left"

    @staticmethod
    async def _refuse(context: Context, call: Call, failure: CallerError | WorldError) -> None:
        """End a call with a failure; nobody is told after the caller's own deadline."""
        if _is_over(context):
            raise asyncio.CancelledError
        told = _told_of(call)
        if failure.retry_after_s is not None:
            told = (*told, ("retry-after", str(max(1, failure.retry_after_s))))
        await _abort(context, code_of(failure), failure.message, told)


def _peer(context: Context) -> str:
    """The network address in `ipv4:127.0.0.1:5000` or `ipv6:%5B::1%5D:5000`."""
    _, _, address = unquote(context.peer()).partition(":")
    return address.rpartition(":")[0].strip("[]")


def _unread(tell: TellAnybody) -> Unanswered:
    """For what anybody may ask: the message says nothing, so it is not waited for."""

    async def answer(call: Call, headers: dict[bytes, bytes], context: Context) -> bytes:
        found: bytes = (await tell()).SerializeToString()
        return found

    return answer


def _too_many_streams() -> CallerError:
    return CallerError(
        "too_many_streams",
        f"There are too many streams open, of this organisation ({STREAMS_OF_TENANT_MAX}) or of"
        " all. Send more messages on each, or try again.",
        status=429,
        retry_after_s=1,
    )


def _told_of(call: Call) -> tuple[tuple[str, str], ...]:
    """Trailing metadata: what HTTP has in its headers."""
    told = [("x-request-id", call.request_name)]
    if call.run is not None:
        lines = call.run.told().decode("ascii").splitlines()
        told += [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    return tuple(told)


async def _abort(
    context: Context, code: grpc.StatusCode, words: str, told: tuple[tuple[str, str], ...] = ()
) -> None:
    """End a call with a status; one whose caller left, or takes nothing, is over without."""
    try:
        async with asyncio.timeout(ABORT_S_MAX):
            await context.abort(code, words, told)
    except (TimeoutError, grpc.aio.InternalError):
        raise asyncio.CancelledError from None


def _is_over(context: Context) -> bool:
    left = context.time_remaining()
    return left is not None and left <= 0


def _headers(context: Context) -> dict[bytes, bytes]:
    """The caller's metadata, repeated names joined."""
    found: dict[bytes, bytes] = {}
    for key, value in context.invocation_metadata() or ():
        name = key.encode() if isinstance(key, str) else key
        content = value.encode() if isinstance(value, str) else value
        found[name] = found[name] + b", " + content if name in found else content
    return found


async def _not_here(messages: Any, context: Context) -> None:
    await context.abort(
        grpc.StatusCode.UNIMPLEMENTED,
        "This method does not exist here. There are ServerLive, ServerReady, ServerMetadata,"
        " ModelReady, ModelMetadata, ModelInfer and ModelStreamInfer.",
    )
