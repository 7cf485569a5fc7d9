"""Pieces of an engine in OpenAI's words: what chats and completions have in common."""

from typing import Any

import msgspec

from meterplane.gateway.adapters.engine import Piece, TokenLogprob


class TextAnswer:
    """The answer to one request, streamed or whole. `choices` are all of it, over all prompts."""

    whole_object = ""
    chunk_object = ""
    id_prefix = ""

    def __init__(
        self, request_id: str, created_s: int, model: str, choices: int, *, include_usage: bool
    ) -> None:
        self._head = {"id": self.id_prefix + request_id, "created": created_s, "model": model}
        self._include_usage = include_usage
        self._texts = [""] * choices
        self._reasons: list[str | None] = [None] * choices
        self._logprobs: list[list[TokenLogprob]] = [[] for _ in range(choices)]

    def opening(self) -> bytes:
        """What comes before the first piece."""
        raise NotImplementedError

    def piece(self, first: int, piece: Piece) -> bytes:
        """The events of one piece whose choices begin at `first`; also remembered for `whole`."""
        events = b""
        for offset, text in enumerate(piece.texts):
            index = first + piece.index + offset
            logprobs = piece.logprobs[offset] if piece.logprobs else []
            if text or logprobs:
                delta = self.delta(index, text, logprobs)
                self._texts[index] += text
                self._logprobs[index] += logprobs
                events += self.event(delta | {"index": index, "finish_reason": None})
        for offset, reason in enumerate(piece.finish_reasons):
            index = first + piece.index + offset
            if reason is not None and self._reasons[index] is None:
                self._reasons[index] = reason
                events += self._end(index, reason)
        return events

    def delta(self, index: int, text: str, logprobs: list[TokenLogprob]) -> dict[str, Any]:
        """What a choice of a chunk says; empty for its end."""
        raise NotImplementedError

    def choice(self, index: int) -> dict[str, Any]:
        """What a choice of the plain answer says."""
        raise NotImplementedError

    def _end(self, index: int, reason: str) -> bytes:
        return self.event(self.delta(index, "", []) | {"index": index, "finish_reason": reason})

    def closing(self, tokens_in: int, tokens_out: int) -> bytes:
        """Whatever finish reason is still owed, the usage if it was asked for, and the end."""
        events = b""
        for index, reason in enumerate(self._reasons):
            if reason is None:
                events += self._end(index, "stop")
        if self._include_usage:
            events += self._line({"choices": [], "usage": usage(tokens_in, tokens_out)})
        return events + b"data: [DONE]\n\n"

    def whole(self, tokens_in: int, tokens_out: int) -> bytes:
        """The plain answer collected from all pieces."""
        choices = [
            self.choice(index) | {"index": index, "finish_reason": reason or "stop"}
            for index, reason in enumerate(self._reasons)
        ]
        body = self._head | {"object": self.whole_object, "choices": choices}
        return msgspec.json.encode(body | {"usage": usage(tokens_in, tokens_out)})

    def event(self, choice: dict[str, Any]) -> bytes:
        """A chunk of one choice."""
        return self._line({"choices": [choice]} | ({"usage": None} if self._include_usage else {}))

    def _line(self, body: dict[str, Any]) -> bytes:
        full = self._head | {"object": self.chunk_object} | body
        return b"data: " + msgspec.json.encode(full) + b"\n\n"


def usage(tokens_in: int, tokens_out: int) -> dict[str, int]:
    """OpenAI's `usage`."""
    return {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
    }
