"""TensorRT-LLM's classic ensemble (and `tensorrt_llm_bls`) on Triton, deployed decoupled.

Contract: `inflight_batcher_llm/ensemble/config.pbtxt` of NVIDIA/TensorRT-LLM. Every response is of
one sequence, `sequence_index`; a tensor [1, 1] is a scalar here. Nothing tells why a sequence
ended: one that used up what it was allowed ended by its length.

The problem: deployments differ in what a response holds. The ensemble sends what is new, text and
`num_output_tokens` alike; `tensorrt_llm_bls` with `accumulate_tokens` sends all text so far, and
counts may be totals too; where the engine's configuration says so, the prompt is in front. Nothing
in a response says which, so each sequence is read by its own evidence: see `totals`.
"""

from typing import Any

import msgspec

from meterplane.contracts.usage import Provenance
from meterplane.gateway import errors
from meterplane.gateway.adapters.engine import (
    Ask,
    Piece,
    count_of,
    reasons_of,
    sampling_of,
    texts_of,
)
from meterplane.gateway.adapters.totals import Sequence
from meterplane.gateway.surfaces.openai_text import CHOICES_MAX

SEEDS = 2**64  # the tensor is unsigned


class TensorRtLlm:
    """See `engine.Engine`."""

    provenance: Provenance = "engine"
    choices_max = CHOICES_MAX

    def body(self, ask: Ask) -> bytes:
        """As in `Engine`. What a model does not declare, Triton takes as a parameter nobody reads.

        An empty list of words would be a tensor of no elements, which the ensemble refuses.
        """
        fields = ask.parameters | sampling_of(ask.request)
        if ask.seed is not None:
            fields["seed"] = ask.seed % SEEDS
        if stops := ask.request.stops():
            fields["stop_words"] = stops
        if ask.choices > 1:
            fields["num_return_sequences"] = ask.choices
        fields |= {
            "text_input": ask.prompt,
            "max_tokens": ask.tokens_out_max,
            "stream": True,
            "exclude_input_in_output": True,
            "return_num_input_tokens": True,
            "return_num_output_tokens": True,
        }
        return msgspec.json.encode(fields)

    def reader(self, ask: Ask) -> "TensorRtLlmReader":
        """As in `Engine`."""
        return TensorRtLlmReader(ask)


class TensorRtLlmReader:
    """See `engine.Reader`."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._sequences = [Sequence(ask.prompt) for _ in range(ask.choices)]
        self._beams_tokens = 0  # only where a caller speaks the engine's own protocol
        self.tokens_in = 0
        self.tokens_out = 0

    def read(self, event: dict[str, Any]) -> Piece:
        """As in `Reader`."""
        texts = texts_of(event, self._ask.choices)
        index = count_of(event.get("sequence_index", 0))
        if index >= self._ask.choices:
            raise errors.unmeasurable()
        self.tokens_in = max(self.tokens_in, count_of(event.get("num_input_tokens")))
        count = count_of(event.get("num_output_tokens"))
        if len(texts) > 1:
            # Beams, all of them in one response and each time from the start: the last is it.
            self._beams_tokens = self.tokens_out = max(self._beams_tokens, count)
            return Piece(texts, reasons_of(event, len(texts)))
        (text,) = texts
        new = self._sequences[index].add(text, count, self.tokens_in)
        self.tokens_out = sum(each.tokens for each in self._sequences)
        return Piece([new], reasons_of(event, 1), index)

    def finish(self) -> Piece:
        """As in `Reader`."""
        held = [each.finish() for each in self._sequences]
        if self._beams_tokens:
            return Piece([], [])
        self.tokens_out = sum(each.tokens for each in self._sequences)
        tokens_max = self._ask.tokens_out_max
        reasons: list[str | None] = [
            "length" if each.tokens >= tokens_max else "stop" for each in self._sequences
        ]
        return Piece(held, reasons)
