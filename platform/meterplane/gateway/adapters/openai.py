"""An OpenAI-compatible upstream (vLLM, NIM, Triton's own frontend): bytes passed on, counted.

The request is written anew from what was read, with our bound on its output, so that two parsers
cannot differ on what was admitted. The answer goes through as bytes. The upstream always reports
usage to us; a caller who did not ask for it in a stream does not see it. One that reports none is
counted by the model's tokenizer, and the event says so.
"""

from typing import Any

import msgspec

from meterplane.gateway import errors
from meterplane.gateway.adapters.kserve_words import failure_in_our_names
from meterplane.gateway.adapters.openai_estimate import (
    KeptChunks,
    tokens_in,
    tokens_in_by_bytes,
    tokens_of_answer,
)
from meterplane.gateway.adapters.openai_stream import NO_ERROR, OpenAIStream, Usage, failure_of
from meterplane.gateway.ask import JSON_REQUEST, fetch, finish, headers_for, send
from meterplane.gateway.exchange import JSON, Exchange
from meterplane.gateway.pipeline import Parts
from meterplane.gateway.run import Run
from meterplane.gateway.surfaces.openai_chat import ChatRequest
from meterplane.gateway.surfaces.openai_embeddings import EmbeddingsWork
from meterplane.gateway.surfaces.openai_text import (
    StreamOptions,
    TextRequest,
    TextWork,
    output_tokens,
)
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.triton.failures import TritonBroken
from meterplane.triton.request import Request
from meterplane.triton.upstream import Upstream

PATHS = {
    "openai.chat": "/v1/chat/completions",
    "openai.completions": "/v1/completions",
    "openai.embeddings": "/v1/embeddings",
}
EVENT_STREAM = (
    b"content-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\nx-accel-buffering: no\r\n"
)
END_MARK = b"data: [DONE]\n\n"


class UpstreamOptions(StreamOptions, frozen=True):
    """Running totals, too: they make a stream exact that its caller leaves."""

    continuous_usage_stats: bool = True


_COUNTED = StreamOptions(include_usage=True)
_COUNTED_ALWAYS = UpstreamOptions(include_usage=True)


class _Answer(msgspec.Struct, frozen=True):
    usage: Usage | None = None
    error: msgspec.Raw = NO_ERROR


_decoder = msgspec.json.Decoder(_Answer)
_encode = msgspec.json.Encoder().encode


async def forward(exchange: Exchange, run: Run, parts: Parts) -> None:
    """Answer from the upstream. Raises `CallerError` or `WorldError`."""
    work: Any = run.work
    request = Request(
        "POST", PATHS[work.surface], body(run), headers_for(exchange, run, JSON_REQUEST)
    )
    if work.stream:
        await _stream(exchange, run, request, parts)
        return
    answer = await fetch(exchange, run, request, parts)
    run.served = True
    await _measure(run, answer.body)
    content = answer.body
    if run.target.upstream != run.model.name:
        content = _renamed(content, run)
    await finish(exchange, run, JSON, content)


def body(run: Run) -> bytes:
    """The request for the upstream, from an allow-list, its output bounded as it was admitted."""
    work: Any = run.work
    request = work.request
    if isinstance(work, EmbeddingsWork):
        changed = msgspec.structs.replace(
            request, model=run.target.upstream, user=None, metadata=None
        )
    else:
        changed = _text_request(work, run)
    written = _encode(changed)
    if work.extras:
        written = written[:-1] + b"," + _encode(work.extras)[1:]
    return written


def _text_request(work: TextWork, run: Run) -> TextRequest:
    request = work.request
    options = _COUNTED_ALWAYS if run.offer.serving.continuous_usage else _COUNTED
    changes: dict[str, Any] = {
        "model": run.target.upstream,
        "user": None,
        "metadata": None,
        "stream_options": options if work.stream else None,
    }
    tokens = output_tokens(work, run.offer)
    if isinstance(request, ChatRequest) and request.max_completion_tokens is not None:
        changes["max_completion_tokens"] = tokens
        changes["max_tokens"] = None
    else:
        changes["max_tokens"] = tokens
    return msgspec.structs.replace(request, **changes)


async def _measure(run: Run, content: bytes) -> None:
    try:
        answer = _decoder.decode(content)
    except (msgspec.DecodeError, msgspec.ValidationError) as problem:
        raise TritonBroken(f"it is not an answer ({problem})") from None
    if bytes(answer.error) != b"null":
        raise failure_of(answer.error)
    usage = answer.usage or Usage()
    tokens_out = usage.completion_tokens
    if isinstance(run.work, EmbeddingsWork):
        tokens_out = 0
    if usage.prompt_tokens is not None and tokens_out is not None:
        run.tokens_in, run.tokens_out = usage.prompt_tokens, tokens_out
        run.provenance = "engine"
        return
    counted = await tokens_of_answer(run, content)
    if counted is None:
        raise errors.unmeasurable()
    run.tokens_in, run.tokens_out = counted
    run.provenance = "tokenizer"


def _renamed(content: bytes, run: Run) -> bytes:
    """The model's name here in place of its name there. Never inside text: quotes are escaped."""
    there, here = _encode(run.target.upstream), _encode(run.model.name)
    return content.replace(b'"model":' + there, b'"model":' + here, 1).replace(
        b'"model": ' + there, b'"model": ' + here, 1
    )


async def _stream(exchange: Exchange, run: Run, request: Request, parts: Parts) -> None:
    offer = run.offer
    upstream = await send(exchange, run, request, parts)
    events = OpenAIStream(
        strip_usage=not run.work.request.include_usage,  # type: ignore[attr-defined]
        continuous=offer.serving.continuous_usage,
    )
    kept = KeptChunks() if offer.prompts.tokenizer(offer.serving) is not None else None
    try:
        await _relay(exchange, run, upstream, events, kept)
        _count_kept(run, events, kept)
        run.last_byte()
        run.bytes_out += len(END_MARK)
        await run.settle("ok", 200)
        await exchange.write(END_MARK, more=False)
    except (CallerError, WorldError) as failure:
        if not exchange.begun:
            raise
        _count_kept(run, events, kept)
        await end_broken_stream(exchange, run, failure)
    except BaseException:
        _count_kept(run, events, kept)  # the caller left, or time is up
        raise
    finally:
        upstream.close()


async def _relay(
    exchange: Exchange,
    run: Run,
    upstream: Upstream,
    events: OpenAIStream,
    kept: KeptChunks | None,
) -> None:
    """Blocks to the caller, each counted, and recorded, before it leaves."""
    renames = run.target.upstream != run.model.name
    there = b'"model":' + _encode(run.target.upstream)
    here = b'"model":' + _encode(run.model.name)
    spaced = there.replace(b":", b": ", 1)
    estimated_in = await tokens_in(run) if kept is not None else tokens_in_by_bytes(run)
    while (block := await upstream.block()) is not None:
        run.first_byte()
        passed = events.feed(block)
        if renames:
            passed = passed.replace(there, here).replace(spaced, here)
        _count(run, events, estimated_in)
        if passed:
            run.served = True
            run.bytes_out += len(passed)
            await run.checkpoint()
            if kept is not None:
                kept.keep(passed)
            if not exchange.begun:
                exchange.begin(200, EVENT_STREAM)
            await exchange.write(passed, more=True)
        if events.failure is not None:
            raise events.failure
    events.finish()
    if events.failure is not None:
        raise events.failure
    if not exchange.begun:
        exchange.begin(200, EVENT_STREAM)


def _count(run: Run, events: OpenAIStream, estimated_in: int) -> None:
    if events.reported:
        run.tokens_in = events.tokens_in
        run.tokens_out = events.tokens_out
        run.provenance = "engine"
    elif events.chunks_out:
        run.tokens_in = estimated_in
        run.tokens_out = events.chunks_out
        run.provenance = "estimate"


def _count_kept(run: Run, events: OpenAIStream, kept: KeptChunks | None) -> None:
    """What nobody reported, by the tokenizer. Once: a run that is settled does not change."""
    if kept is None or events.reported or run.settled is not None:
        return
    counted = kept.tokens_out(run)
    if counted is not None:
        run.tokens_out = counted
        run.provenance = "tokenizer"


async def end_broken_stream(
    exchange: Exchange, run: Run, failure: CallerError | WorldError
) -> None:
    """The head is gone already: end the stream with an error event."""
    failure = failure_in_our_names(failure, run)
    _, _, content = errors.render(failure, exchange.surface)
    event = b"data: " + content + b"\n\n"
    run.bytes_out += len(event)
    await run.settle("error", failure.status)
    await exchange.write(event, more=False)
