"""Pieces of an engine in OpenAI's words for a chat."""

from typing import Any

import msgspec

from meterplane.gateway.adapters.engine import Piece
from meterplane.gateway.surfaces.openai_chat import ChatRequest


class ChatAnswer:
    """The answer to one request, streamed or whole."""

    def __init__(self, request_id: str, created_s: int, model: str, request: ChatRequest) -> None:
        self._head = {"id": f"chatcmpl-{request_id}", "created": created_s, "model": model}
        self._choices = request.choices
        self._include_usage = request.include_usage
        self._texts = [""] * self._choices
        self._reasons: list[str | None] = [None] * self._choices

    def opening(self) -> bytes:
        """The first event: each choice's role."""
        return b"".join(
            self._event(index, {"role": "assistant", "content": ""}, None)
            for index in range(self._choices)
        )

    def piece(self, piece: Piece) -> bytes:
        """The events of one piece; also remembered for `whole`."""
        events = b""
        for offset, text in enumerate(piece.texts):
            index = piece.index + offset
            if index >= self._choices:
                break
            reasons = piece.finish_reasons
            reason = reasons[offset] if offset < len(reasons) else None
            self._texts[index] += text
            if text:
                events += self._event(index, {"content": text}, None)
            if reason is not None and self._reasons[index] is None:
                self._reasons[index] = reason
                events += self._event(index, {}, reason)
        return events

    def closing(self, tokens_in: int, tokens_out: int) -> bytes:
        """Whatever finish reason is still owed, the usage if it was asked for, and the end."""
        events = b""
        for index, reason in enumerate(self._reasons):
            if reason is None:
                events += self._event(index, {}, "stop")
        if self._include_usage:
            events += self._line({"choices": [], "usage": usage(tokens_in, tokens_out)})
        return events + b"data: [DONE]\n\n"

    def whole(self, tokens_in: int, tokens_out: int) -> bytes:
        """The plain answer collected from all pieces."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": self._reasons[index] or "stop",
            }
            for index, text in enumerate(self._texts)
        ]
        body = self._head | {"object": "chat.completion", "choices": choices}
        return msgspec.json.encode(body | {"usage": usage(tokens_in, tokens_out)})

    def _event(self, index: int, delta: dict[str, Any], reason: str | None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._line({"choices": [choice]} | ({"usage": None} if self._include_usage else {}))

    def _line(self, body: dict[str, Any]) -> bytes:
        full = self._head | {"object": "chat.completion.chunk"} | body
        return b"data: " + msgspec.json.encode(full) + b"\n\n"


def usage(tokens_in: int, tokens_out: int) -> dict[str, int]:
    """OpenAI's `usage`."""
    return {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
    }
