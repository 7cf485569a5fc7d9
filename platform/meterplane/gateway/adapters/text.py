"""Text engines on Triton, through the generate protocol.

The upstream is always streamed, and a plain answer is collected from it: one way to measure, and a
caller who leaves is billed for what the engine generated until then.
"""

from typing import Any

from meterplane.gateway.adapters.engine import Engine
from meterplane.gateway.adapters.openai import EVENT_STREAM, end_broken_stream
from meterplane.gateway.adapters.vllm import Vllm
from meterplane.gateway.ask import JSON_REQUEST, finish, headers_for, refusal, send
from meterplane.gateway.exchange import JSON, Exchange
from meterplane.gateway.pipeline import Parts
from meterplane.gateway.run import Run
from meterplane.gateway.surfaces import openai_chat
from meterplane.gateway.surfaces.openai_chat_answer import ChatAnswer
from meterplane.gateway.surfaces.openai_text import TextRequest, output_tokens
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.triton.failures import TritonBroken
from meterplane.triton.generate import EventReader, failure_of
from meterplane.triton.request import Request
from meterplane.triton.upstream import Upstream

ENGINES: dict[str, Engine] = {"vllm": Vllm()}


async def forward(exchange: Exchange, run: Run, parts: Parts) -> None:
    """Answer a chat or a completion. Raises `CallerError`, `WorldError` or `ClientGone`."""
    work: Any = run.work
    engine = ENGINES[run.model.adapter]
    answer = ChatAnswer(str(run.request_id), clock.now_ms() // 1000, run.model.name, work.request)
    prompt = openai_chat.render_prompt(work.request.messages)
    body = engine.body(prompt, sampling(work.request, run), work.stream)
    path = f"/v2/models/{run.target.upstream}/generate_stream"
    request = Request("POST", path, body, headers_for(exchange, run, JSON_REQUEST))
    upstream = await send(exchange, run, request, parts)
    try:
        await _relay(exchange, run, upstream, engine, answer)
    except (CallerError, WorldError) as failure:
        if not exchange.begun:
            raise
        await end_broken_stream(exchange, run, failure)
        return
    finally:
        upstream.close()
    run.last_byte()
    if not work.stream:
        await finish(exchange, run, JSON, answer.whole(run.tokens_in, run.tokens_out))
        return
    closing = answer.closing(run.tokens_in, run.tokens_out)
    run.bytes_out += len(closing)
    await run.settle("ok", 200)
    await exchange.write(closing, more=False)


def sampling(request: TextRequest, run: Run) -> dict[str, Any]:
    """vLLM's sampling parameters, from an allow-list."""
    found: dict[str, Any] = {
        "max_tokens": output_tokens(request, run.model),
        "n": request.choices,
    }
    for name in ("temperature", "top_p", "seed", "frequency_penalty", "presence_penalty"):
        value = getattr(request, name)
        if value is not None:
            found[name] = value
    if request.stop is not None:
        found["stop"] = request.stops()
    return found


async def _relay(
    exchange: Exchange, run: Run, upstream: Upstream, engine: Engine, answer: ChatAnswer
) -> None:
    """Pieces to the caller, each counted, and recorded, before it leaves."""
    reader = EventReader()
    while (block := await upstream.block()) is not None:
        run.first_byte()
        events = b""
        for event in reader.feed(block):
            failure = failure_of(event)
            if failure is not None:
                raise refusal(500 if run.served else 400, failure)
            piece = engine.read(event)
            run.served = True
            run.provenance = engine.provenance
            run.tokens_in = max(run.tokens_in, piece.tokens_in)
            run.tokens_out += piece.tokens_out
            events += answer.piece(piece)
        if not run.served or not run.work.stream:
            continue
        if not exchange.begun:
            events = answer.opening() + events
            exchange.begin(200, EVENT_STREAM)
        if events:
            run.bytes_out += len(events)
            run.checkpoint()
            await exchange.write(events, more=True)
    reader.finish()
    if not run.served:
        raise TritonBroken("it ended before it began")
