"""Counts for an OpenAI-compatible upstream that reports none: by the model's tokenizer.

What such an upstream wrote is looked at once, when it is over. A stream's chunks are kept for that,
up to `KEPT_BYTES_MAX`; behind that, and without a tokenizer, a chunk is a token.
"""

from typing import Any

import msgspec

from meterplane.gateway.run import Run
from meterplane.kernel.errors import CallerError, WorldError

KEPT_BYTES_MAX = 4 * 1024 * 1024  # x 64 streams = 256 MB; ~20,000 chunks of 200 bytes each
PROMPT_BYTES_PER_TOKEN = 4  # where nobody counts: English is 4 to 5 bytes a token, code 3

_SAID = ("content", "reasoning_content", "reasoning", "refusal")


class _Call(msgspec.Struct, frozen=True):
    function: dict[str, Any] | None = None


class _Message(msgspec.Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct, frozen=True):
    index: int = 0
    text: str | None = None
    message: _Message | None = None
    delta: _Message | None = None


class _Written(msgspec.Struct, frozen=True):
    choices: list[_Choice] = []


_decoder = msgspec.json.Decoder(_Written)


class KeptChunks:
    """The chunks of one stream, for as long as it may turn out that nobody counted them."""

    __slots__ = ("_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def keep(self, events: bytes) -> None:
        """What went to the caller."""
        self._size += len(events)
        if self._size <= KEPT_BYTES_MAX:
            self._parts.append(events)
        else:
            self._parts.clear()

    def tokens_out(self, run: Run) -> int | None:
        """By the tokenizer; None when that cannot be told."""
        if not 0 < self._size <= KEPT_BYTES_MAX:
            return None
        texts: dict[int, str] = {}
        for event in b"".join(self._parts).split(b"\n\n"):
            for index, text in _texts(event.removeprefix(b"data:").strip()):
                texts[index] = texts.get(index, "") + text
        return _counted(run, list(texts.values()))


async def tokens_of_answer(run: Run, content: bytes) -> tuple[int, int] | None:
    """Input and output tokens of a whole answer; None without a tokenizer."""
    tokenizer = run.offer.prompts.tokenizer(run.offer.serving)
    if tokenizer is None:
        return None
    texts = [text for _, text in _texts(content)]
    return await tokens_in(run), sum(await tokenizer.count_elsewhere(texts))


def tokens_in_by_bytes(run: Run) -> int:
    """Of the request, where there is no tokenizer."""
    return run.work.bytes_in // PROMPT_BYTES_PER_TOKEN


async def tokens_in(run: Run) -> int:
    """Of the request: exact where there is a tokenizer, by its bytes for the rest."""
    work: Any = run.work
    try:
        written = work.prompts(run.offer)
    except (CallerError, WorldError):
        return tokens_in_by_bytes(run)  # the upstream has its own template, and took the messages
    total = 0
    for prompt in await run.offer.prompts.all_counted(run.offer.serving, written):
        if prompt.tokens is None:
            total += len(prompt.text.encode()) // PROMPT_BYTES_PER_TOKEN
        else:
            total += prompt.tokens
    return total


def _counted(run: Run, texts: list[str]) -> int | None:
    tokenizer = run.offer.prompts.tokenizer(run.offer.serving)
    return None if tokenizer is None else sum(tokenizer.count(text) for text in texts)


def _texts(data: bytes) -> list[tuple[int, str]]:
    try:
        written = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    return [(choice.index, _text(choice)) for choice in written.choices]


def _text(choice: _Choice) -> str:
    said = choice.message or choice.delta
    if said is None:
        return choice.text or ""
    parts = [getattr(said, name) or "" for name in _SAID]
    for call in said.tool_calls or []:
        if call.function is not None:
            parts += [str(call.function.get(name) or "") for name in ("name", "arguments")]
    return "".join(parts)
