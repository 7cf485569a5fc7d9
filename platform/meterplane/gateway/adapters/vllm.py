"""Triton's vLLM backend. It reports its counts when asked: the prompt's on every response, the
output's as what each response adds, per sequence."""

from typing import Any

import msgspec

from meterplane.contracts.usage import Provenance
from meterplane.gateway import errors
from meterplane.gateway.adapters.engine import Piece, as_list


class Vllm:
    """See `engine.Engine`."""

    provenance: Provenance = "engine"

    def body(self, prompt: str, sampling: dict[str, Any], stream: bool) -> bytes:
        """As in `Engine`."""
        return msgspec.json.encode(
            {
                "text_input": prompt,
                "stream": True,
                "sampling_parameters": msgspec.json.encode(sampling).decode(),
                "exclude_input_in_output": True,
                "return_num_input_tokens": True,
                "return_num_output_tokens": True,
                "return_finish_reason": True,
            }
        )

    def read(self, event: dict[str, Any]) -> Piece:
        """As in `Engine`."""
        try:
            tokens_in = int(event["num_input_tokens"])
            tokens_out = sum(int(count) for count in as_list(event["num_output_tokens"]))
            texts = [str(text) for text in as_list(event["text_output"])]
        except (KeyError, TypeError, ValueError):
            raise errors.unmeasurable() from None
        reasons = [
            None if reason in (None, "None", "") else str(reason)
            for reason in as_list(event.get("finish_reason", "None"))
        ]
        return Piece(texts, reasons, tokens_in, tokens_out)
