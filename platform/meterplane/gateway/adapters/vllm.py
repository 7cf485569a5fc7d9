"""Triton's vLLM backend. It reports its counts when asked: the prompt's on every response, the
output's as what each response adds, per sequence.

Contract: `src/utils/request.py` of triton-inference-server/vllm_backend. `logprobs` is a JSON text
per sequence: a list of `{token id: {logprob, rank, decoded_token}}`, one per new token, the
generated one first.
"""

import json
from typing import Any

import msgspec

from meterplane.contracts.usage import Provenance
from meterplane.gateway import errors
from meterplane.gateway.adapters.engine import (
    Ask,
    Piece,
    TokenLogprob,
    as_list,
    count_of,
    reasons_of,
    sampling_of,
    texts_of,
)
from meterplane.gateway.surfaces.openai_text import CHOICES_MAX

LOGPROB_MIN = -9999.0  # what OpenAI writes for "never"; JSON has no infinity


class Vllm:
    """See `engine.Engine`."""

    provenance: Provenance = "engine"
    choices_max = CHOICES_MAX

    def body(self, ask: Ask) -> bytes:
        """As in `Engine`."""
        fields: dict[str, Any] = {
            "text_input": ask.prompt,
            "stream": True,
            "sampling_parameters": msgspec.json.encode(_sampling(ask)).decode(),
            "exclude_input_in_output": True,
            "return_num_input_tokens": True,
            "return_num_output_tokens": True,
            "return_finish_reason": True,
        }
        if ask.logprobs is not None:
            fields["return_logprobs"] = True
        return msgspec.json.encode(fields)

    def reader(self, ask: Ask) -> "VllmReader":
        """As in `Engine`."""
        return VllmReader(ask)


def _sampling(ask: Ask) -> dict[str, Any]:
    """vLLM's sampling parameters, from an allow-list; ours come last, so nothing replaces them."""
    found = ask.parameters | sampling_of(ask.request)
    if ask.seed is not None:
        found["seed"] = ask.seed
    if ask.request.stop is not None:
        found["stop"] = ask.request.stops()
    if ask.logprobs is not None:
        found["logprobs"] = ask.logprobs
    return found | {"max_tokens": ask.tokens_out_max, "n": ask.choices}


class VllmReader:
    """See `engine.Reader`."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.tokens_in = 0
        self.tokens_out = 0

    def read(self, event: dict[str, Any]) -> Piece:
        """As in `Reader`."""
        texts = texts_of(event, self._ask.choices)
        counts = [count_of(count) for count in as_list(event.get("num_output_tokens"))]
        if len(counts) != len(texts):
            raise errors.unmeasurable()
        self.tokens_in = max(self.tokens_in, count_of(event.get("num_input_tokens")))
        self.tokens_out += sum(counts)
        logprobs = None
        if self._ask.logprobs is not None and "logprobs" in event:
            told = as_list(event["logprobs"])[: len(texts)]
            told += [None] * (len(texts) - len(told))
            logprobs = _logprobs(told, self._ask.logprobs)
        return Piece(texts, reasons_of(event, len(texts)), 0, logprobs)

    def finish(self) -> Piece:
        """As in `Reader`: nothing is held back."""
        return Piece([], [])


def _logprobs(sequences: list[Any], alternatives: int) -> list[list[TokenLogprob]]:
    """Per sequence, one per new token. What cannot be read is left out: it is not what is sold."""
    found = []
    for sequence in sequences:
        try:
            places = json.loads(sequence) or []  # Python's own: vLLM writes -Infinity
            found.append([_place(list(place.values()), alternatives) for place in places])
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            found.append([])
    return found


def _place(tokens: list[dict[str, Any]], alternatives: int) -> TokenLogprob:
    ranked = sorted(tokens, key=lambda token: int(token["rank"]))[:alternatives]
    chosen = tokens[0]
    return TokenLogprob(
        str(chosen["decoded_token"]),
        _bounded(chosen["logprob"]),
        [(str(token["decoded_token"]), _bounded(token["logprob"])) for token in ranked],
    )


def _bounded(logprob: float) -> float:
    return max(float(logprob), LOGPROB_MIN)
