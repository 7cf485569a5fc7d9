"""Forward an admitted request, measure what comes back, and answer.

The end of an answer leaves only after its SETTLE is durable: whoever holds a complete answer is in
the journal. A refusal by the model is settled as an error and costs nothing.
"""

import asyncio

from meterplane.gateway import errors, kserve, openai_chat, openai_embeddings
from meterplane.gateway.exchange import Exchange, while_connected
from meterplane.gateway.run import Run
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.kernel.limits import STREAM_DURATION_S_MAX
from meterplane.triton.client import Response, TritonClient, Upstream
from meterplane.triton.failures import TritonBroken, TritonTimeout, TritonUnavailable
from meterplane.triton.generate import EventReader, error_text, failure_of

JSON = [(b"content-type", b"application/json")]
JSON_REQUEST = {"content-type": "application/json"}


async def forward(exchange: Exchange, run: Run, triton: TritonClient) -> None:
    """Answer by the surface's own way. Raises `CallerError`, `WorldError` or `ClientGone`."""
    if run.work.surface == "openai.chat":
        answering = _chat(exchange, run, triton)
    elif run.work.surface == "openai.embeddings":
        answering = _embeddings(exchange, run, triton)
    else:
        answering = _infer(exchange, run, triton)
    try:
        # Also for a caller who stops reading: a reservation does not live for ever.
        async with asyncio.timeout(STREAM_DURATION_S_MAX):
            await while_connected(answering, exchange)
    except TimeoutError:
        raise TritonTimeout from None


async def _infer(exchange: Exchange, run: Run, triton: TritonClient) -> None:
    sent: kserve.Infer = run.work.body
    headers = JSON_REQUEST
    if sent.json_bytes is not None:
        headers = {
            "content-type": "application/octet-stream",
            "inference-header-content-length": str(sent.json_bytes),
        }
    answer = await triton.request("POST", run.upstream_path, sent.body, headers)
    _check(run, answer)
    run.served = True
    passed = [
        (name, value)
        for name in (b"content-type", kserve.HEADER_LENGTH)
        if (value := answer.headers.get(name)) is not None
    ]
    await _finish(exchange, run, passed, answer.body)


async def _embeddings(exchange: Exchange, run: Run, triton: TritonClient) -> None:
    body = openai_embeddings.upstream_body(run.work, run.model)
    answer = await triton.request("POST", run.upstream_path, body, JSON_REQUEST)
    _check(run, answer)
    split = int(answer.headers.get(kserve.HEADER_LENGTH, b"0"))
    prefix, tensors = answer.body[:split], answer.body[split:]
    tokens, width = openai_embeddings.read_answer(prefix, tensors)
    content = openai_embeddings.answer(run.work.body, tensors, width, sum(tokens))
    run.served = True
    run.tokens_in = sum(tokens)
    run.provenance = "tokenizer"
    await _finish(exchange, run, JSON, content)


def _check(run: Run, answer: Response) -> None:
    """A whole answer that is not an error. Raises what it is otherwise."""
    run.first_byte()
    run.server = answer.server
    if answer.status != 200:
        raise _refusal(answer.status, error_text(answer.body))
    if answer.body.startswith(b'{"error"'):  # Triton can fail inside a 200
        raise _refusal(500, error_text(answer.body))


async def _finish(
    exchange: Exchange, run: Run, headers: list[tuple[bytes, bytes]], content: bytes
) -> None:
    run.bytes_out = len(content)
    await run.settle("ok", 200)
    await exchange.answer(200, headers, content)


async def _chat(exchange: Exchange, run: Run, triton: TritonClient) -> None:
    shape = openai_chat.ChatShape(str(run.request_id), clock.now_ms() // 1000, run.work.body)
    body = openai_chat.upstream_body(run.work, run.model)
    async with triton.stream("POST", run.upstream_path, body, JSON_REQUEST) as upstream:
        run.server = upstream.server
        if upstream.status != 200:
            raise _refusal(upstream.status, error_text(await upstream.read()))
        try:
            await _relay(exchange, run, upstream, shape)
        except (CallerError, WorldError) as failure:
            if not exchange.begun:
                raise
            await _end_broken_stream(exchange, run, failure)
            return
    if run.work.stream:
        closing = shape.closing(run.tokens_in, run.tokens_out)
        run.bytes_out += len(closing)
        await run.settle("ok", 200)
        await exchange.write(closing, more=False)
    else:
        await _finish(exchange, run, JSON, shape.answer(run.tokens_in, run.tokens_out))


async def _relay(
    exchange: Exchange, run: Run, upstream: Upstream, shape: openai_chat.ChatShape
) -> None:
    """Engine chunks to the caller, each counted, and recorded, before it leaves."""
    reader = EventReader()
    async for data in upstream.chunks():
        run.first_byte()
        events = b""
        for event in reader.feed(data):
            failure = failure_of(event)
            if failure is not None:
                raise _refusal(500 if run.served else 400, failure)
            chunk = openai_chat.read_chunk(event)
            run.served = True
            run.provenance = "engine"
            run.tokens_in = max(run.tokens_in, chunk.tokens_in)
            run.tokens_out += chunk.tokens_out
            events += shape.chunk(chunk)
        if not run.served:
            continue
        if run.work.stream and not exchange.begun:
            events = shape.opening() + events
            await exchange.begin(200, _EVENT_STREAM)
        if run.work.stream and events:
            run.bytes_out += len(events)
            run.checkpoint()
            await exchange.write(events, more=True)
    reader.finish()
    if not run.served:
        raise TritonBroken("it ended before it began")


_EVENT_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


async def _end_broken_stream(
    exchange: Exchange, run: Run, failure: CallerError | WorldError
) -> None:
    """The head is gone already: end the stream with an error event, billed for what was sent."""
    _, _, body = errors.render(failure, exchange.surface)
    event = b"data: " + body + b"\n\n"
    run.bytes_out += len(event)
    await run.settle("error", failure.status)
    await exchange.write(event, more=False)


def _refusal(status: int, text: str) -> CallerError | WorldError:
    """What Triton refused with, as the kind of failure it is."""
    if status == 503 or "is not healthy" in text:
        # A model whose process died answers 400, as if the caller were at fault.
        return TritonUnavailable(text)
    if status in (400, 404, 501):
        return CallerError("invalid_request", text, status=400)
    return WorldError("upstream_failed", text, status=502, retry_after_s=None)
