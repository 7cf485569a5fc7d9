"""TensorRT-LLM's LLM API backend on Triton, deployed decoupled.

Contract: `llmapi/tensorrt_llm` of NVIDIA/TensorRT-LLM. It answers one sequence a request, and every
response of a stream has all of its text so far. It reports no token counts: the prompt and the
output are counted by the model's own tokenizer, and the event says so.

While it streams, only what came since the last word that is certainly over is counted again; the
whole text is counted once, at the end.
"""

import re
from typing import Any

import msgspec

from meterplane.contracts.usage import Provenance
from meterplane.gateway import errors
from meterplane.gateway.adapters.engine import Ask, Piece, reasons_of, sampling_of, texts_of
from meterplane.kernel.invariant import ensure

PREFIX = "sampling_param_"
EXCLUDES = PREFIX + "exclude_input_from_output"
SEEDS = 2**64  # the tensor is unsigned
OPEN_CHARS_MAX = 256  # text counted again with every response
# Where tokenizers split before they look for pairs: in front of a blank between two words.
_BORDER = re.compile(r"(?<=\w)(?= \w)")


class LlmApi:
    """See `engine.Engine`."""

    provenance: Provenance = "tokenizer"
    choices_max = 1

    def body(self, ask: Ask) -> bytes:
        """As in `Engine`. What a model does not declare, Triton makes a parameter nobody reads."""
        fields: dict[str, Any] = {
            name if name.startswith(PREFIX) else PREFIX + name: value
            for name, value in ask.parameters.items()
        }
        fields |= {PREFIX + name: value for name, value in sampling_of(ask.request).items()}
        if ask.seed is not None:
            fields[PREFIX + "seed"] = ask.seed % SEEDS
        if stops := ask.request.stops():
            fields[PREFIX + "stop"] = stops
        fields |= {
            "text_input": ask.prompt,
            "streaming": True,
            PREFIX + "max_tokens": ask.tokens_out_max,
            EXCLUDES: True,
            "return_finish_reason": True,
        }
        return msgspec.json.encode(fields)

    def reader(self, ask: Ask) -> "LlmApiReader":
        """As in `Engine`."""
        return LlmApiReader(ask)


class LlmApiReader:
    """See `engine.Reader`."""

    def __init__(self, ask: Ask) -> None:
        ensure(ask.count is not None, "admission lets no uncounted engine through")
        ensure(ask.tokens_in is not None, "the prompt is counted before it is forwarded")
        self._ask = ask
        self._sequences = [_Sequence(ask) for _ in range(ask.choices)]
        self.tokens_in = 0  # until there is an answer
        self.tokens_out = 0

    def read(self, event: dict[str, Any]) -> Piece:
        """As in `Reader`."""
        texts = texts_of(event, self._ask.choices)
        new = [each.add(text) for each, text in zip(self._sequences, texts, strict=False)]
        self.tokens_in = self._ask.tokens_in or 0
        self.tokens_out = sum(each.tokens for each in self._sequences)
        return Piece(new, reasons_of(event, len(texts)))

    def finish(self) -> Piece:
        """As in `Reader`."""
        for each in self._sequences:
            each.count_whole()
        self.tokens_out = sum(each.tokens for each in self._sequences)
        return Piece([], [])


class _Sequence:
    """The text of one sequence so far, and its tokens."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._text = ""
        self._closed_chars = 0  # in front, counted for good
        self._closed_tokens = 0
        self.tokens = 0

    def add(self, text: str) -> str:
        """What a response adds. Raises `WorldError` 502 when it does not go on from the last."""
        if self._ask.echoed:
            text = text.removeprefix(self._ask.prompt)
        if not text.startswith(self._text):
            # Not the contract: text would be shown twice, and counted once.
            raise errors.unmeasurable()
        new = text[len(self._text) :]
        self._text = text
        self._count()
        return new

    def count_whole(self) -> None:
        """Exactly, once there is no more."""
        self.tokens = self._bounded(self._tokens_in(self._text))

    def _count(self) -> None:
        open_text = self._text[self._closed_chars :]
        if len(open_text) > OPEN_CHARS_MAX:
            # A script without blanks is cut anywhere: a token more or less until the end.
            border = max((found.start() for found in _BORDER.finditer(open_text)), default=0)
            border = border or len(open_text) - OPEN_CHARS_MAX // 4
            self._closed_tokens += self._tokens_in(open_text[:border])
            self._closed_chars += border
            open_text = open_text[border:]
        self.tokens = self._bounded(self._closed_tokens + self._tokens_in(open_text))

    def _tokens_in(self, text: str) -> int:
        assert self._ask.count is not None
        return self._ask.count(text)

    def _bounded(self, tokens: int) -> int:
        # Text can be split into more tokens than it was made of; the engine was bound to these.
        return min(tokens, self._ask.tokens_out_max)
