"""Triton's generate protocol, end to end: the caller speaks it as the server does.

Text engines are counted, and the counts taken out of the answer for a caller who did not ask; what
else is in an event is passed on as the bytes it came as. A stream ends with its connection's chunk,
which leaves after the SETTLE: this protocol has no end mark.
"""

from typing import Any

import msgspec

from meterplane.gateway import errors
from meterplane.gateway.adapters.engine import Ask, Reader
from meterplane.gateway.adapters.kserve_words import answer_in_our_names
from meterplane.gateway.adapters.llmapi import EXCLUDES
from meterplane.gateway.adapters.openai import EVENT_STREAM, end_broken_stream
from meterplane.gateway.adapters.text import ENGINES
from meterplane.gateway.ask import JSON_REQUEST, fetch, finish, headers_for, refusal, send
from meterplane.gateway.exchange import JSON, Exchange
from meterplane.gateway.pipeline import Parts
from meterplane.gateway.run import Run
from meterplane.gateway.surfaces.kserve_generate import COUNTS, GenerateWork, asked_of
from meterplane.gateway.surfaces.kserve_models import target_with
from meterplane.gateway.surfaces.openai_text import TextRequest
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.triton.failures import TritonBroken
from meterplane.triton.generate import RawEvents, failure_of
from meterplane.triton.request import Request
from meterplane.triton.upstream import Upstream
from meterplane.triton.v2 import model_path

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_decode = msgspec.json.Decoder().decode


async def forward(exchange: Exchange, run: Run, parts: Parts) -> None:
    """`generate` or `generate_stream`. Raises `CallerError`, `WorldError` or `ClientGone`."""
    work = run.work
    assert isinstance(work, GenerateWork)
    verb = "generate_stream" if work.stream else "generate"
    run.target = target_with(work.version, run.target, run.offer.serving)
    path = model_path(run.target.upstream, verb, work.version or run.target.version)
    body = work.upstream_body(run.offer)
    request = Request("POST", path, body, headers_for(exchange, run, JSON_REQUEST))
    meter = Meter(run, work, await reader_of(run, work))
    if not work.stream:
        answer = await fetch(exchange, run, request, parts)
        content = meter.event(answer.body)
        meter.finish()
        await finish(exchange, run, JSON, content)
        return
    upstream = await send(exchange, run, request, parts)
    try:
        await _relay(exchange, run, upstream, meter)
    except (CallerError, WorldError) as failure:
        if not exchange.begun:
            raise
        await end_broken_stream(exchange, run, failure)
        return
    finally:
        upstream.close()
    run.last_byte()
    await run.settle("ok", 200)
    await exchange.write(b"", more=False)


async def reader_of(run: Run, work: GenerateWork) -> Reader | None:
    """Counts a text engine's answer; None for any other model."""
    engine, offer = ENGINES.get(run.model.adapter), run.offer
    if engine is None:
        return None
    asked = asked_of(work.document, offer)
    prompt = offer.prompts.text(offer.serving, asked.prompt)
    prompt = await offer.prompts.counted(offer.serving, prompt)
    tokenizer = offer.prompts.tokenizer(offer.serving)
    run.provenance = engine.provenance
    return engine.reader(
        Ask(
            prompt=prompt.text,
            tokens_in=prompt.tokens,
            choices=asked.choices,
            tokens_out_max=asked.tokens,
            request=TextRequest(model=work.model),
            parameters={},
            count=None if tokenizer is None else tokenizer.count,
            echoed=bytes(work.document.get(EXCLUDES, b"")) != b"true",
        )
    )


class Meter:
    """Counts one request's events and gives them as the caller may see them."""

    __slots__ = ("_hidden", "_reader", "_run")

    def __init__(self, run: Run, work: GenerateWork, reader: Reader | None) -> None:
        self._run = run
        self._reader = reader
        self._hidden = [] if reader is None else [c for c in COUNTS if c not in work.asks_counts]

    def event(self, data: bytes) -> bytes:
        """One event. Raises what it is when it is an error; `WorldError` when it has no counts."""
        run = self._run
        if self._reader is None:
            # Any model: nothing is counted inside, only an error must not pass for an answer.
            if b'"error"' in data:
                self._check(_object(data))
            run.served = True
            return self._visible(data)
        document = _object(data)
        self._check(document)
        self._reader.read(document)
        run.served = True
        run.tokens_in, run.tokens_out = self._reader.tokens_in, self._reader.tokens_out
        return self._visible(data)

    def finish(self) -> None:
        """The answer is whole: its counts are final."""
        if self._reader is not None:
            self._reader.finish()
            self._run.tokens_out = self._reader.tokens_out

    def _check(self, document: dict[str, Any]) -> None:
        failure = failure_of(document)
        if failure is not None:
            raise refusal(500 if self._run.served else 400, failure)

    def _visible(self, data: bytes) -> bytes:
        if self._hidden:
            fields = _fields.decode(data)
            for name in self._hidden:
                fields.pop(name, None)
            data = msgspec.json.encode(fields)
        return answer_in_our_names(data, self._run)


async def _relay(exchange: Exchange, run: Run, upstream: Upstream, meter: Meter) -> None:
    """Events to the caller, each counted, and recorded, before it leaves.

    What came before an error leaves before it, however the network joined them.
    """
    reader = RawEvents()
    while (block := await upstream.block()) is not None:
        run.first_byte()
        events: list[bytes] = []
        failure: CallerError | WorldError | None = None
        try:
            for data in reader.feed(block):
                events.append(b"data: %b\n\n" % meter.event(data))
        except (CallerError, WorldError) as problem:
            failure = problem
        if events:
            passed = b"".join(events)
            run.bytes_out += len(passed)
            await run.checkpoint()
            if not exchange.begun:
                exchange.begin(200, EVENT_STREAM)
            await exchange.write(passed, more=True)
        if failure is not None:
            raise failure
    reader.finish()
    meter.finish()
    if not exchange.begun:
        if run.model.adapter in ENGINES:
            raise TritonBroken("it ended before it began")
        run.served = True  # a model may answer with nothing
        exchange.begin(200, EVENT_STREAM)


def _object(data: bytes) -> dict[str, Any]:
    try:
        document = _decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as problem:
        raise TritonBroken(f"it is not JSON ({problem})") from None
    if not isinstance(document, dict):
        raise errors.unmeasurable()
    return document
