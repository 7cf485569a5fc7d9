"""What a text engine is given: a conversation as its model reads it, and how many tokens that is.

A chat is written by the model's own template: the catalog's, else its tokenizer's, else a plain
line per message. Counts are exact where the model's tokenizer is here, and unknown elsewhere: then
a bound is made of the bytes. So it is for what is long: nothing has been admitted yet, and
everybody else waits while a text is counted. Before it is sent, it is counted on a thread.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from meterplane.contracts.serving import ModelServing
from meterplane.gateway.templates import Templates
from meterplane.gateway.tokenizers import InPlace, Tokenizer, Tokenizers


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt. `tokens` is exact, or None where nobody has counted."""

    text: str
    tokens: int | None = None


class Prompts:
    """One worker's tokenizers and templates."""

    def __init__(self, tokenizers_dir: Path | None = None) -> None:
        self.tokenizers = Tokenizers(tokenizers_dir)
        self._templates = Templates()

    def ready(self, serving: ModelServing) -> bool:
        """Whether everything a model's prompts need has been read."""
        return self.tokenizers.known(serving.tokenizer)

    async def make_ready(self, serving: ModelServing) -> None:
        """Read what is missing."""
        await self.tokenizers.read(serving.tokenizer)

    def tokenizer(self, serving: ModelServing) -> Tokenizer | None:
        """The model's tokenizer, where there is one."""
        return self.tokenizers.held(serving.tokenizer)

    def chat(
        self,
        serving: ModelServing,
        messages: list[dict[str, Any]],
        in_place: InPlace | None = None,
    ) -> Prompt:
        """The prompt of a conversation. Raises `CallerError` 400, `WorldError` 503."""
        tokenizer = self.tokenizer(serving)
        source = serving.chat_template or (tokenizer.chat_template if tokenizer else "")
        if not source:
            return self.text(serving, plain_chat(messages), in_place)
        # A tokenizer that came later brings another template for the same serving.
        key = (serving.name, serving.version, tokenizer is not None)
        special_tokens = tokenizer.special_tokens if tokenizer else {}
        text = self._templates.render(key, source, _in_roles(messages), special_tokens)
        text = tokenizer.without_beginning(text) if tokenizer else text
        return self.text(serving, text, in_place)

    def text(self, serving: ModelServing, text: str, in_place: InPlace | None = None) -> Prompt:
        """A prompt that is text already; counted unless that takes long.

        `in_place` is what its request has left, where it is not the only text of it.
        """
        tokenizer = self.tokenizer(serving)
        if tokenizer is None or not (in_place or InPlace()).takes(text):
            return Prompt(text)
        return Prompt(text, tokenizer.count(text, special=True))

    async def counted(self, serving: ModelServing, prompt: Prompt) -> Prompt:
        """A long prompt with its count, where there is a tokenizer."""
        (counted,) = await self.all_counted(serving, [prompt])
        return counted

    async def all_counted(self, serving: ModelServing, prompts: list[Prompt]) -> list[Prompt]:
        """Prompts with their counts, where there is a tokenizer."""
        tokenizer = self.tokenizer(serving)
        uncounted = [prompt.text for prompt in prompts if prompt.tokens is None]
        if tokenizer is None or not uncounted:
            return prompts
        counts = iter(await tokenizer.count_elsewhere(uncounted, special=True))
        return [
            replace(prompt, tokens=next(counts)) if prompt.tokens is None else prompt
            for prompt in prompts
        ]


def plain_chat(messages: list[dict[str, Any]]) -> str:
    """A line per message, ending where the assistant speaks."""
    lines = [f"{message['role']}: {message['content']}" for message in messages]
    return "\n".join([*lines, "assistant:"])


def _in_roles(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """OpenAI calls `developer` what templates know as `system`."""
    return [
        message | {"role": "system"} if message["role"] == "developer" else message
        for message in messages
    ]
