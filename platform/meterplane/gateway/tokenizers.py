"""Tokenizers of models whose engine does not count, loaded when first needed.

A folder below `TOKENIZERS_DIR` holds `tokenizer.json` and, where the model chats,
`tokenizer_config.json`. Names come from the catalog and are checked there.
"""

from pathlib import Path
from typing import Any


class Tokenizers:
    """Counts tokens of text by a model's own tokenizer."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._loaded: dict[str, Any] = {}

    def count(self, name: str, text: str) -> int | None:
        """Tokens in a text; None when there is no such tokenizer."""
        tokenizer = self._load(name)
        return None if tokenizer is None else len(tokenizer.encode(text).ids)

    def _load(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = self._read(name)
        return self._loaded[name]

    def _read(self, name: str) -> Any:
        if not name or self._directory is None:
            return None
        path = self._directory / name / "tokenizer.json"
        if not path.is_file():
            return None
        from tokenizers import Tokenizer  # 30 ms and 10 MB that most workers never need

        return Tokenizer.from_file(str(path))
