"""Tokenizers of models, read from disk when a request first needs one.

A folder below `TOKENIZERS_DIR` holds `tokenizer.json` and, where the model chats,
`tokenizer_config.json`. Names come from the catalog and are checked there.

Reading takes up to a second for a vocabulary of 150,000 tokens, so it happens on a thread and
before a request is bounded: `known` tells whether it still has to. What is not there, or cannot be
read, is looked for again after a while: a folder added later needs no restart.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

log = logging.getLogger("meterplane.gateway")

ABSENT_MEMORY_S = 10.0
CONFIG_BYTES_MAX = 4 * 1024 * 1024  # published ones reach 200 kB
# Of one request, all its texts together: ~1.2 ms of English or code at 3.4 MB/s, 5 ms of characters
# that nobody writes in a row (0.8 MB/s). What is beyond is counted on a thread.
COUNTED_IN_PLACE_CHARS_MAX = 4096
TEXT_CHARS_LEAST = 32  # a call costs ~15 us however short its text is: 128 of a letter, 2 ms
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")


class Tokenizer:
    """One model's tokenizer, and what its configuration says about chats."""

    __slots__ = ("_begins_with", "_tokenizer", "chat_template", "special_tokens")

    def __init__(self, tokenizer: Any, config: dict[str, Any]) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._begins_with = tokenizer.encode("").tokens[:1]
        self.chat_template = _chat_template(config)
        self.special_tokens = _special_tokens(config)

    def count(self, text: str, *, special: bool = False) -> int:
        """Tokens in a text; `special`: with those that begin and end a prompt."""
        return len(self._tokenizer.encode(text, add_special_tokens=special))

    async def count_elsewhere(self, texts: Sequence[str], *, special: bool = False) -> list[int]:
        """As `count` of each, on a thread."""
        return await asyncio.to_thread(self._count_all, texts, special)

    def _count_all(self, texts: Sequence[str], special: bool) -> list[int]:
        # In batches the tokenizer lets other threads run. One by one: all at once are large.
        encode = self._tokenizer.encode_batch_fast
        return [len(encode([text], add_special_tokens=special)[0]) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, all of them of this tokenizer: others would be left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def unknown(self, ids: Sequence[int]) -> int | None:
        """The first id that no token has. Ids are from 0 to 2^31 - 1."""
        token_of = self._tokenizer.id_to_token
        # Each id once: asking is 0.3 us, and most ids of a long text come again.
        return next((each for each in dict.fromkeys(ids) if token_of(each) is None), None)

    def without_beginning(self, prompt: str) -> str:
        """A prompt without the token that the engine's tokenizer puts before every text."""
        beginning = self.special_tokens.get("bos_token", "")
        if beginning and self._begins_with == [beginning]:
            return prompt.removeprefix(beginning)
        return prompt


class InPlace:
    """How much of one request may still be counted at once, on the loop that serves everybody."""

    __slots__ = ("_chars_left",)

    def __init__(self) -> None:
        self._chars_left = COUNTED_IN_PLACE_CHARS_MAX

    def takes(self, text: str) -> bool:
        """Whether this text may be counted too; then it was."""
        chars = max(len(text), TEXT_CHARS_LEAST)
        if chars > self._chars_left:
            return False
        self._chars_left -= chars
        return True


class Tokenizers:
    """One worker's tokenizers, by the names of their folders."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._held: dict[str, Tokenizer] = {}
        self._absent: dict[str, float] = {}
        self._reading = asyncio.Lock()

    def held(self, name: str) -> Tokenizer | None:
        """A tokenizer that was read; None when there is none, or it was not looked for yet."""
        return self._held.get(name)

    def known(self, name: str) -> bool:
        """Whether `held` is all there is to say about a name just now."""
        return (
            not name
            or name in self._held
            or self._directory is None
            or time.monotonic() < self._absent.get(name, 0.0)
        )

    async def read(self, name: str) -> None:
        """Look for a tokenizer; afterwards it is known."""
        async with self._reading:
            if self.known(name):
                return  # another request waited for the same
            found = await asyncio.to_thread(self._read, name)
            if found is None:
                self._absent[name] = time.monotonic() + ABSENT_MEMORY_S
            else:
                self._held[name] = found

    def _read(self, name: str) -> Tokenizer | None:
        if self._directory is None:
            return None
        from tokenizers import Tokenizer as Reader  # 30 ms and 10 MB that most workers never need

        folder = self._directory / name
        try:
            return Tokenizer(Reader.from_file(str(folder / "tokenizer.json")), _config(folder))
        except Exception as problem:  # the library raises bare ones for files it cannot read
            log.error(
                "tokenizer not usable", extra={"folder": str(folder), "problem": str(problem)}
            )
            return None


def _config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    path = folder / "tokenizer_config.json"
    if path.is_file():
        with path.open("rb") as file:
            found = msgspec.json.decode(file.read(CONFIG_BYTES_MAX), type=dict[str, Any])
    newer = folder / "chat_template.jinja"  # beside the configuration since 2025, and above it
    if newer.is_file():
        with newer.open("rb") as file:
            found["chat_template"] = file.read(CONFIG_BYTES_MAX).decode()
    return found


def _chat_template(config: dict[str, Any]) -> str:
    found = config.get("chat_template")
    if isinstance(found, list):  # several, by name
        named = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else ""


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    found = {}
    for name in SPECIAL_TOKENS:
        token = config.get(name)
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            found[name] = token
    return found
