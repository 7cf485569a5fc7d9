"""Pieces of an engine in OpenAI's words for a text completion."""

from typing import Any

from meterplane.gateway.adapters.engine import TokenLogprob
from meterplane.gateway.surfaces.openai_completions import CompletionRequest
from meterplane.gateway.surfaces.openai_text_answer import TextAnswer


class CompletionAnswer(TextAnswer):
    """The answer to one request: `n` choices of each prompt, in the order of the prompts."""

    whole_object = "text_completion"
    chunk_object = "text_completion"
    id_prefix = "cmpl-"

    def __init__(
        self,
        request_id: str,
        created_s: int,
        model: str,
        request: CompletionRequest,
        prompts: list[str],
    ) -> None:
        super().__init__(
            request_id,
            created_s,
            model,
            request.choices * len(prompts),
            include_usage=request.include_usage,
        )
        # What is echoed is text of ours: the engine is told to leave it out.
        self._echoed = [
            prompt if request.echo else "" for prompt in prompts for _ in range(request.choices)
        ]
        self._with_logprobs = request.logprobs is not None

    def opening(self) -> bytes:
        """The prompts, for a caller who wants them back."""
        return b"".join(
            self.event({"index": index, "text": text, "logprobs": None, "finish_reason": None})
            for index, text in enumerate(self._echoed)
            if text
        )

    def delta(self, index: int, text: str, logprobs: list[TokenLogprob]) -> dict[str, Any]:
        """As in `TextAnswer`."""
        offset = len(self._texts[index])
        return {"text": text, "logprobs": _written(logprobs, offset) if logprobs else None}

    def choice(self, index: int) -> dict[str, Any]:
        """As in `TextAnswer`."""
        logprobs = _written(self._logprobs[index], 0) if self._with_logprobs else None
        return {"text": self._echoed[index] + self._texts[index], "logprobs": logprobs}


def _written(logprobs: list[TokenLogprob], offset: int) -> dict[str, Any]:
    """`offset` is where in the choice's text the first of them stands."""
    offsets = []
    for each in logprobs:
        offsets.append(offset)
        offset += len(each.token)
    return {
        "tokens": [each.token for each in logprobs],
        "token_logprobs": [each.logprob for each in logprobs],
        "top_logprobs": [dict(each.top) for each in logprobs],
        "text_offset": offsets,
    }
