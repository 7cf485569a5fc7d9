"""Pieces of an engine in OpenAI's words for a chat."""

from typing import Any

from meterplane.gateway.adapters.engine import TokenLogprob
from meterplane.gateway.surfaces.openai_chat import ChatRequest
from meterplane.gateway.surfaces.openai_text_answer import TextAnswer


class ChatAnswer(TextAnswer):
    """The answer to one request, streamed or whole."""

    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"
    id_prefix = "chatcmpl-"

    def __init__(self, request_id: str, created_s: int, model: str, request: ChatRequest) -> None:
        super().__init__(
            request_id, created_s, model, request.choices, include_usage=request.include_usage
        )
        self._with_logprobs = bool(request.logprobs)

    def opening(self) -> bytes:
        """Each choice's role."""
        delta = {"role": "assistant", "content": ""}
        return b"".join(
            self.event({"index": index, "delta": delta, "logprobs": None, "finish_reason": None})
            for index in range(len(self._texts))
        )

    def delta(self, index: int, text: str, logprobs: list[TokenLogprob]) -> dict[str, Any]:
        """As in `TextAnswer`."""
        delta = {"content": text} if text or logprobs else {}
        return {"delta": delta, "logprobs": _written(logprobs) if logprobs else None}

    def choice(self, index: int) -> dict[str, Any]:
        """As in `TextAnswer`."""
        return {
            "message": {"role": "assistant", "content": self._texts[index], "refusal": None},
            "logprobs": _written(self._logprobs[index]) if self._with_logprobs else None,
        }


def _written(logprobs: list[TokenLogprob]) -> dict[str, Any]:
    return {
        "content": [
            _token(each.token, each.logprob)
            | {"top_logprobs": [_token(token, logprob) for token, logprob in each.top]}
            for each in logprobs
        ],
        "refusal": None,
    }


def _token(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}
