"""Text engines on Triton, through the generate protocol.

The upstream is always streamed, and a plain answer is collected from it: one way to measure, and a
caller who leaves is billed for what the engine generated until then.

Several prompts, or more choices than an engine makes at once, are several requests to it, run
together: one answer, one usage event. The first that fails ends the others, and makes only itself
free: what the others had delivered is due. Otherwise one prompt that an engine refuses would make
any number of prompts free.
"""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

import msgspec

from meterplane.gateway.adapters.engine import Ask, Engine, Piece, Reader
from meterplane.gateway.adapters.llmapi import LlmApi
from meterplane.gateway.adapters.openai import EVENT_STREAM, end_broken_stream
from meterplane.gateway.adapters.tensorrtllm import TensorRtLlm
from meterplane.gateway.adapters.vllm import Vllm
from meterplane.gateway.ask import JSON_REQUEST, finish, headers_for, refusal, send
from meterplane.gateway.exchange import JSON, Exchange
from meterplane.gateway.pipeline import Parts
from meterplane.gateway.prompts import Prompt
from meterplane.gateway.run import Due, Run
from meterplane.gateway.surface import Offer
from meterplane.gateway.surfaces.openai_chat import ChatRequest
from meterplane.gateway.surfaces.openai_chat_answer import ChatAnswer
from meterplane.gateway.surfaces.openai_completions import CompletionRequest
from meterplane.gateway.surfaces.openai_completions_answer import CompletionAnswer
from meterplane.gateway.surfaces.openai_text import (
    TextRequest,
    TextWork,
    check_context,
    output_tokens_after,
)
from meterplane.gateway.surfaces.openai_text_answer import TextAnswer
from meterplane.kernel import clock
from meterplane.kernel.errors import CallerError, WorldError
from meterplane.triton.failures import TritonBroken
from meterplane.triton.generate import RawEvents, failure_of
from meterplane.triton.request import Request

ENGINES: dict[str, Engine] = {"vllm": Vllm(), "tensorrtllm": TensorRtLlm(), "llmapi": LlmApi()}
ASKED_AT_ONCE = 8  # requests to an engine for one of a caller's


async def forward(exchange: Exchange, run: Run, parts: Parts) -> None:
    """Answer a chat or a completion. Raises `CallerError`, `WorldError` or `ClientGone`."""
    work: Any = run.work
    engine = ENGINES[run.model.adapter]
    prompts = await _counted(work, run.offer)
    answer = _answer(run, work.request, prompts)
    delivery = _Delivery(exchange, run, answer)
    shares = [
        _Share(first, ask, engine.reader(ask))
        for first, ask in asks_for(work, run.offer, prompts, engine)
    ]
    try:
        if len(shares) == 1:
            await _ask(exchange, run, parts, engine, delivery, shares[0])
        else:
            await together(
                [_ask(exchange, run, parts, engine, delivery, share) for share in shares],
                ASKED_AT_ONCE,
            )
    except (CallerError, WorldError) as failure:
        if not exchange.begun:
            raise
        run.due_despite_failure = due_of(shares, work.request.choices)
        await end_broken_stream(exchange, run, failure)
        return
    run.last_byte()
    if not work.stream:
        await finish(exchange, run, JSON, answer.whole(run.tokens_in, run.tokens_out))
        return
    closing = answer.closing(run.tokens_in, run.tokens_out)
    run.bytes_out += len(closing)
    await run.settle("ok", 200)
    await exchange.write(closing, more=False)


async def _counted(work: TextWork, offer: Offer) -> list[Prompt]:
    """The prompts; long ones were admitted without a count."""
    prompts = work.prompts(offer)
    if offer.prompts.tokenizer(offer.serving) is None:
        return prompts
    counted = [await offer.prompts.counted(offer.serving, prompt) for prompt in prompts]
    for prompt in counted:
        check_context(prompt, work, offer)
    return counted


def _answer(run: Run, request: TextRequest, prompts: list[Prompt]) -> TextAnswer:
    told = (str(run.request_id), clock.now_ms() // 1000, run.model.name)
    if isinstance(request, CompletionRequest):
        return CompletionAnswer(*told, request, [prompt.text for prompt in prompts])
    assert isinstance(request, ChatRequest)
    return ChatAnswer(*told, request)


def asks_for(
    work: TextWork, offer: Offer, prompts: list[Prompt], engine: Engine
) -> list[tuple[int, Ask]]:
    """What an engine is asked, each with the index of its first choice in the answer."""
    request = work.request
    parameters = {name: msgspec.json.decode(value) for name, value in work.extras.items()}
    tokenizer = offer.prompts.tokenizer(offer.serving)
    asks = []
    for number, prompt in enumerate(prompts):
        for first in range(0, request.choices, engine.choices_max):
            ask = Ask(
                prompt=prompt.text,
                # What several requests read is one prompt.
                tokens_in=prompt.tokens if first == 0 else 0,
                choices=min(engine.choices_max, request.choices - first),
                tokens_out_max=output_tokens_after(prompt, work, offer),
                request=request,
                parameters=parameters,
                logprobs=_logprobs(request),
                seed=None if request.seed is None else request.seed + first,
                count=None if tokenizer is None else tokenizer.count,
            )
            asks.append((number * request.choices + first, ask))
    return asks


def _logprobs(request: TextRequest) -> int | None:
    if isinstance(request, ChatRequest):
        return (request.top_logprobs or 0) if request.logprobs else None
    return request.logprobs if isinstance(request, CompletionRequest) else None


class _Share:
    """One request to the engine, and what the caller had of it. `first` is its first choice."""

    __slots__ = ("ask", "failed", "first", "reader", "tokens_in", "tokens_out")

    def __init__(self, first: int, ask: Ask, reader: Reader) -> None:
        self.first = first
        self.ask = ask
        self.reader = reader
        self.tokens_in = 0
        self.tokens_out = 0
        self.failed = False

    def delivered(self) -> None:
        """Everything that was read until now leaves for the caller."""
        self.tokens_in, self.tokens_out = self.reader.tokens_in, self.reader.tokens_out


def due_of(shares: list[_Share], choices: int) -> Due | None:
    """What was delivered by those that did not fail. `choices` are those of one prompt."""
    given = [each for each in shares if not each.failed and (each.tokens_in or each.tokens_out)]
    if not given:
        return None
    return Due(
        sum(each.tokens_in for each in given),
        sum(each.tokens_out for each in given),
        len({each.first // choices for each in given}),
    )


class _Delivery:
    """Pieces to the caller, each counted, and recorded, before it leaves."""

    def __init__(self, exchange: Exchange, run: Run, answer: TextAnswer) -> None:
        self._exchange = exchange
        self._run = run
        self._answer = answer
        self._writing = asyncio.Lock()

    def shape(self, first: int, piece: Piece) -> bytes:
        """The events of a piece, which is also kept for a plain answer."""
        return self._answer.piece(first, piece)

    async def send(self, events: bytes, share: _Share, *, last: bool = False) -> None:
        """To a caller who streams; a plain answer leaves at the end."""
        run, exchange = self._run, self._exchange
        if not run.work.stream:
            return
        async with self._writing:
            if not exchange.begun:
                events = self._answer.opening() + events
                exchange.begin(200, EVENT_STREAM)
            if events or last:
                share.delivered()
            if events:
                run.bytes_out += len(events)
                await run.checkpoint()
                await exchange.write(events, more=True)


async def _ask(
    exchange: Exchange,
    run: Run,
    parts: Parts,
    engine: Engine,
    delivery: _Delivery,
    share: _Share,
) -> None:
    """One request to the engine, read to its end. A share that fails itself says so."""
    try:
        await _read_to_its_end(exchange, run, parts, engine, delivery, share)
    except (CallerError, WorldError):
        share.failed = True
        raise


async def _read_to_its_end(
    exchange: Exchange,
    run: Run,
    parts: Parts,
    engine: Engine,
    delivery: _Delivery,
    share: _Share,
) -> None:
    target, reader = run.target, share.reader
    path = f"/v2/models/{target.upstream}"
    if target.version:
        path += f"/versions/{target.version}"
    headers = headers_for(exchange, run, JSON_REQUEST)
    request = Request("POST", path + "/generate_stream", engine.body(share.ask), headers)
    events = RawEvents()
    upstream = await send(exchange, run, request, parts)
    began = False
    try:
        while (block := await upstream.block()) is not None:
            run.first_byte()
            written, failure = b"", None
            try:
                for event in events.feed(block):
                    piece = _read(_object(event), run, engine, reader, began)
                    began = True
                    written += delivery.shape(share.first, piece)
            except (CallerError, WorldError) as problem:
                failure = problem  # what came before it in the block is the caller's
            if began:
                await delivery.send(written, share)
            if failure is not None:
                raise failure
        events.finish()
        if not began:
            raise TritonBroken("it ended before it began")
        held = _measured(run, reader, reader.finish)
        await delivery.send(delivery.shape(share.first, held), share, last=True)
    finally:
        upstream.close()


def _read(event: dict[str, Any], run: Run, engine: Engine, reader: Reader, began: bool) -> Piece:
    failure = failure_of(event)
    if failure is not None:
        raise _refused(failure, began)
    piece = _measured(run, reader, partial(reader.read, event))
    run.served = True
    run.provenance = engine.provenance
    return piece


def _measured(run: Run, reader: Reader, step: Any) -> Piece:
    """A step of a reader, what it counted added to the run's."""
    tokens_in, tokens_out = reader.tokens_in, reader.tokens_out
    piece: Piece = step()
    run.tokens_in += reader.tokens_in - tokens_in
    run.tokens_out += reader.tokens_out - tokens_out
    return piece


def _refused(failure: str, began: bool) -> CallerError | WorldError:
    if "decoupled" in failure:
        return WorldError(
            "model_not_decoupled",
            "The operator must deploy this model decoupled, so that it can stream.",
            retry_after_s=None,
        )
    return refusal(500 if began else 400, failure)


_decode = msgspec.json.Decoder().decode


def _object(data: bytes) -> dict[str, Any]:
    try:
        event = _decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as problem:
        raise TritonBroken(f"an event is not JSON ({problem})") from None
    if not isinstance(event, dict):
        raise TritonBroken("an event is not an object")
    return event


async def together(works: list[Coroutine[Any, Any, None]], at_once: int) -> None:
    """All of them, at most `at_once` at a time. The first failure ends the rest and is raised."""
    gate = asyncio.Semaphore(at_once)

    async def one(work: Coroutine[Any, Any, None]) -> None:
        try:
            await gate.acquire()
        except BaseException:
            work.close()
            raise
        try:
            await work
        finally:
            gate.release()

    tasks = [asyncio.create_task(one(work)) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
            raise outcome
