"""Triton's generate protocol, end to end: the caller speaks it as the server does.

Text engines are counted, and the counts taken out of the answer for a caller who did not ask; what
else is in an event is passed on as the bytes it came as. A stream ends with its connection's chunk,
which leaves after the SETTLE: this protocol has no end mark.
"""

from typing import Any

import msgspec

from meterplane.gateway import errors
from meterplane.gateway.adapters.engine import Engine
from meterplane.gateway.adapters.openai import EVENT_STREAM, end_broken_stream
from meterplane.gateway.adapters.text import ENGINES
from meterplane.gateway.ask import JSON_REQUEST, fetch, finish, headers_for, refusal, send
from meterplane.gateway.exchange import JSON, Exchange
from meterplane.gateway.pipeline import Parts
from meterplane.gateway.run import Run
from meterplane.gateway.surfaces.kserve_generate import COUNTS, GenerateWork
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
    path = model_path(run.target.upstream, verb, work.version or run.target.version)
    body = work.upstream_body(run.offer)
    request = Request("POST", path, body, headers_for(exchange, run, JSON_REQUEST))
    meter = Meter(run, work, ENGINES.get(run.model.adapter))
    if not work.stream:
        answer = await fetch(exchange, run, request, parts)
        await finish(exchange, run, JSON, meter.event(answer.body))
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


class Meter:
    """Counts one request's events and gives them as the caller may see them."""

    __slots__ = ("_engine", "_hidden", "_name", "_run")

    def __init__(self, run: Run, work: GenerateWork, engine: Engine | None) -> None:
        self._run = run
        self._engine = engine
        self._hidden = [] if engine is None else [c for c in COUNTS if c not in work.asks_counts]
        here, there = run.model.name, run.target.upstream
        self._name = None if here == there else msgspec.Raw(msgspec.json.encode(here))

    def event(self, data: bytes) -> bytes:
        """One event. Raises what it is when it is an error; `WorldError` when it has no counts."""
        run = self._run
        if self._engine is None:
            # Any model: nothing is counted inside, only an error must not pass for an answer.
            if b'"error"' in data:
                self._check(_object(data))
            run.served = True
            return self._visible(data)
        document = _object(data)
        self._check(document)
        piece = self._engine.read(document)
        run.served = True
        run.provenance = self._engine.provenance
        run.tokens_in = max(run.tokens_in, piece.tokens_in)
        run.tokens_out += piece.tokens_out
        return self._visible(data)

    def _check(self, document: dict[str, Any]) -> None:
        failure = failure_of(document)
        if failure is not None:
            raise refusal(500 if self._run.served else 400, failure)

    def _visible(self, data: bytes) -> bytes:
        if not self._hidden and self._name is None:
            return data
        fields = _fields.decode(data)
        for name in self._hidden:
            fields.pop(name, None)
        if self._name is not None and "model_name" in fields:
            fields["model_name"] = self._name
        return msgspec.json.encode(fields)


async def _relay(exchange: Exchange, run: Run, upstream: Upstream, meter: Meter) -> None:
    """Events to the caller, each counted, and recorded, before it leaves."""
    reader = RawEvents()
    while (block := await upstream.block()) is not None:
        run.first_byte()
        passed = b"".join([b"data: %b\n\n" % meter.event(data) for data in reader.feed(block)])
        if not passed:
            continue
        run.bytes_out += len(passed)
        run.checkpoint()
        if not exchange.begun:
            exchange.begin(200, EVENT_STREAM)
        await exchange.write(passed, more=True)
    reader.finish()
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
