"""Forward an admitted message: `ModelInfer` to one answer, `ModelStreamInfer` to as many as come.

The last response leaves only after its SETTLE is durable. A server that did not take the message is
left for the next target of the model, and the last target for the model's fallbacks, as over HTTP.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection

from meterplane.gateway.adapters.kserve_words import failure_in_our_names
from meterplane.gateway.ask import refusal, secret_of
from meterplane.gateway.authenticate import authenticate
from meterplane.gateway.callers import Caller
from meterplane.gateway.kserve_grpc.answers import Answers, answers_to, is_final
from meterplane.gateway.kserve_grpc.call import Call
from meterplane.gateway.kserve_grpc.infer_work import InferSurface, InferWork, parse
from meterplane.gateway.kserve_grpc.messages import (
    Message,
    ModelInferResponse,
    ModelStreamInferResponse,
    read,
)
from meterplane.gateway.kserve_grpc.servers import DRAIN_S, GrpcServers, Lent, Metadata, Waits
from meterplane.gateway.pipeline import Parts, conclude, open_run
from meterplane.gateway.run import Run
from meterplane.gateway.surfaces.generate_keys import KEYS
from meterplane.gateway.surfaces.kserve_models import target_with
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.limits import (
    STREAM_DURATION_S_MAX,
    UPSTREAM_FIRST_BYTE_TIMEOUT_S,
    UPSTREAM_IDLE_TIMEOUT_S,
)
from meterplane.triton.failures import TritonBroken, TritonUnavailable

# A response of a stream, and whether it is the first and the last of its message.
Deliver = Callable[[bytes, bool, bool], Awaitable[None]]
Once = Callable[[Call, Run, InferWork, GrpcServers], Awaitable[None]]


def speakers(surface: str) -> Collection[str]:
    """The adapters that can answer: tensors of any model, and text engines, counted."""
    return ("tensor", *KEYS)


class Metered:
    """What a message is served with."""

    def __init__(self, parts: Parts, servers: GrpcServers, caller: Caller) -> None:
        self.parts = parts
        self._servers = servers
        self._caller = caller
        self.digest = caller.digest

    async def serve(
        self, call: Call, content: bytes, surface: InferSurface, once: Once, cut: Callable[[], str]
    ) -> None:
        """Admit, forward, settle. Raises what the caller must be told, settled already."""
        policy = await authenticate(self._caller.digest, self.parts.policies)
        work = parse(content, surface)
        try:
            run = await open_run(
                self.parts, self._caller, policy, work, speakers, call, call.patience_s
            )
            call.run = run
            if call.trace is not None:
                run.trace_id = call.trace.trace_id
            await conclude(run, self._forward(call, run, work, once), call, cut)
        finally:
            self.parts.open_runs.forget(self._caller.digest, call)

    async def _forward(self, call: Call, run: Run, work: InferWork, once: Once) -> None:
        call.allow(run.offer.serving.duration_s_max or STREAM_DURATION_S_MAX)
        while True:
            try:
                await once(call, run, work, self._servers)
            except TritonUnavailable:
                if call.begun or run.served or not run.move_on():
                    raise
            except (CallerError, WorldError) as failure:
                raise failure_in_our_names(failure, run) from None
            else:
                return


class Unary:
    """`ModelInfer`: the answer is in `content` once it is settled."""

    def __init__(self) -> None:
        self.content = b""

    async def once(self, call: Call, run: Run, work: InferWork, servers: GrpcServers) -> None:
        """Ask one server. Raises `CallerError` or `WorldError`."""
        async with _asking(call, run, work, servers) as (lent, content, answers):
            answer = await lent.server.unary(
                "ModelInfer", content, _metadata(call, run), _waits(run)
            )
            run.first_byte()
            run.last_byte()
            response = _read(ModelInferResponse, answer)
        changed = answers.read(response)
        answers.finish()
        self.content = response.SerializeToString() if changed else answer
        run.bytes_out = call.bytes_out = len(self.content)
        await run.settle("ok", 200)


class Streamed:
    """One message of `ModelStreamInfer`. `refused` is the server's own words when it failed."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self.refused: Message | None = None

    async def once(self, call: Call, run: Run, work: InferWork, servers: GrpcServers) -> None:
        """Ask one server and pass on what it answers. Raises `CallerError` or `WorldError`."""
        async with _asking(call, run, work, servers) as (lent, content, answers):
            responses = lent.server.stream(
                "ModelStreamInfer", content, _metadata(call, run), _waits(run)
            )
            async with contextlib.aclosing(responses):
                async for each in responses:
                    if await self._pass(call, run, work, answers, each):
                        await _drain(responses)
                        return
        # The server marks no ends: this one is the stream's.
        run.last_byte()
        if work.text_engine(run) and not run.served:
            raise TritonBroken("it ended before it began")
        answers.finish()
        await run.settle("ok", 200)

    async def _pass(
        self, call: Call, run: Run, work: InferWork, answers: Answers, content: bytes
    ) -> bool:
        """One response to the caller, recorded before it leaves; True after the last one."""
        run.first_byte()
        message = _read(ModelStreamInferResponse, content)
        if message.error_message:
            raise self._refusal(run, message)
        response = message.infer_response
        final = is_final(response)
        if answers.read(response):
            content = message.SerializeToString()
        wanted = bool(response.outputs) or not final or work.asks_final
        if wanted:
            run.bytes_out += len(content)
            call.bytes_out = run.bytes_out
        if final:
            run.last_byte()
            answers.finish()
            await run.settle("ok", 200)
        else:
            await run.checkpoint()
        if wanted:
            first, call.begun = not call.begun, True
            await self._deliver(content, first, final)
        return final

    def _refusal(self, run: Run, message: Message) -> CallerError | WorldError:
        if message.infer_response.model_name:
            message.infer_response.model_name = run.model.name
        self.refused = message
        return refusal(500 if run.served else 400, message.error_message)


@contextlib.asynccontextmanager
async def _asking(
    call: Call, run: Run, work: InferWork, servers: GrpcServers
) -> AsyncIterator[tuple[Lent, bytes, Answers]]:
    """A server of the run's target, what it is told, and who counts its answers."""
    run.target = target = target_with(work.version, run.target, run.offer.serving)
    content, hidden = work.written_for(run)
    answers = await answers_to(run, work, hidden)
    async with servers.lend(target.grpc_servers) as lent:
        run.server = lent.server.address
        run.retries += lent.retries
        run.forwarded(call.received_at)
        yield lent, content, answers


async def _drain(responses: AsyncIterator[bytes]) -> None:
    """Let a stream end by itself: a server takes many that are reset for an attack."""
    with contextlib.suppress(TimeoutError, WorldError, CallerError):
        async with asyncio.timeout(DRAIN_S):
            async for _ in responses:
                pass


def _metadata(call: Call, run: Run) -> Metadata:
    found: list[tuple[str, str]] = []
    if call.trace is not None:
        lines = call.trace.headers().decode("ascii").splitlines()
        found += [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    secret = secret_of(run)
    if secret:
        found.append(("authorization", f"Bearer {secret}"))
    return found


def _waits(run: Run) -> Waits:
    serving = run.offer.serving
    return Waits(
        serving.first_byte_timeout_s or UPSTREAM_FIRST_BYTE_TIMEOUT_S,
        serving.idle_timeout_s or UPSTREAM_IDLE_TIMEOUT_S,
    )


def _read(kind: type, content: bytes) -> Message:
    try:
        return read(kind, content)
    except CallerError as problem:
        raise TritonBroken(problem.message) from None
