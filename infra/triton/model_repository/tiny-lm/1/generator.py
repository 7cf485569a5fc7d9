"""A language model small enough to read: word trigrams of `corpus.txt`, with back-off.

It is honest about what it is. It knows the corpus and nothing else; it starts with the sentence of
the corpus that shares most words with the prompt, and goes on by sampling. Its token counts are
real: a token is a word or a mark of the corpus with the space before it; a word it does not know is
one token for each of its characters. The end of a text is no token.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

END = ""  # ends a paragraph; never sent, never counted
_PIECE = re.compile(r"\s*\w+|\s*[^\w\s]|\s+")
_WORD = re.compile(r"\w{3,}")


@dataclass(frozen=True)
class Sampling:
    """What of vLLM's sampling parameters this model knows. Raises ValueError on bad ones."""

    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    n: int = 1
    seed: int | None = None
    stop: list[str] = field(default_factory=list)
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        _check_range("max_tokens", self.max_tokens, int, 1, 4096)
        _check_range("temperature", self.temperature, (int, float), 0, 2)
        _check_range("top_p", self.top_p, (int, float), 1e-6, 1)
        _check_range("n", self.n, int, 1, 8)
        if self.seed is not None:
            _check_range("seed", self.seed, int, -(2**63), 2**64 - 1)
        if not all(isinstance(text, str) and text for text in self.stop):
            raise ValueError("stop must be a text or a list of texts, none of them empty")

    @classmethod
    def read(cls, document: object) -> "Sampling":
        """From the decoded JSON of `sampling_parameters`."""
        if not isinstance(document, dict):
            raise ValueError("sampling_parameters must be a JSON object")
        unknown = document.keys() - cls.__dataclass_fields__.keys()
        if unknown:
            raise ValueError(f"sampling_parameters has an unknown field {min(unknown)!r}")
        stop = document.get("stop") or []
        if not isinstance(stop, str | list):
            raise ValueError("stop must be a text or a list of texts, none of them empty")
        values = {name: value for name, value in document.items() if value is not None}
        return cls(**(values | {"stop": [stop] if isinstance(stop, str) else stop}))


def _check_range(
    name: str, value: object, kind: type | tuple[type, ...], low: float, high: float
) -> None:
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        raise ValueError(f"{name} must be a number from {low} to {high}")


class Generator:
    """The trained model. Safe to use from several threads: it does not change."""

    def __init__(self, corpus: Path) -> None:
        paragraphs = [part.strip() for part in corpus.read_text().split("\n\n") if part.strip()]
        self._followers: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        self._openings: list[tuple[set[str], list[str]]] = []
        self._known: set[str] = set()
        for paragraph in paragraphs:
            self._learn(" ".join(paragraph.split()))

    def _learn(self, paragraph: str) -> None:
        pieces = [*_PIECE.findall(paragraph), END]
        self._known.update(piece.strip() for piece in pieces)
        for position, piece in enumerate(pieces):
            for order in (0, 1, 2):
                if position >= order:
                    self._followers[tuple(pieces[position - order : position])][piece] += 1
        start = 0
        for position, piece in enumerate(pieces):
            if piece in (".", END):
                sentence = pieces[start : position + 1]
                words = set(_WORD.findall("".join(sentence).lower()))
                if len(words) > 2:
                    self._openings.append((words, sentence[:4]))
                start = position + 1

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return sum(
            1 if piece.strip() in self._known else len(piece.strip())
            for piece in _PIECE.findall(text)
        )

    def generate(
        self, prompt: str, sampling: Sampling, sequence: int
    ) -> Iterator[tuple[str, int, str]]:
        """Text, number of tokens computed for it, and "None" until the reason: stop or length.

        Text that may be the beginning of a stop text is held back until it is known not to be.
        """
        seed = None if sampling.seed is None else f"{sampling.seed}:{sequence}:{prompt}"
        chance = random.Random(seed)  # noqa: S311  sampling, not a secret
        pieces = self._opening(prompt, chance)
        hold_back = max((len(text) for text in sampling.stop), default=1) - 1
        written, sent = "", 0
        for position in range(sampling.max_tokens):
            if position == len(pieces):
                pieces.append(self._next(pieces, sampling, chance))
            if pieces[position] == END and sampling.ignore_eos:
                first, *rest = self._opening(prompt, chance)
                pieces[position:] = [" " + first.lstrip(), *rest]
            piece = pieces[position] if position else pieces[0].lstrip()
            if piece == END:
                yield written[sent:], 0, "stop"
                return
            written += piece
            found = [written.find(text, sent) for text in sampling.stop if text in written[sent:]]
            if found:
                # The token counts, for it was computed; the stop text is not part of the answer.
                yield written[sent : min(found)], 1, "stop"
                return
            end = max(sent, len(written) - hold_back)
            yield written[sent:end], 1, "None"
            sent = end
        yield written[sent:], 0, "length"

    def _opening(self, prompt: str, chance: random.Random) -> list[str]:
        asked = set(_WORD.findall(prompt.lower()))
        best = max(len(words & asked) for words, _ in self._openings)
        candidates = [start for words, start in self._openings if len(words & asked) == best]
        return list(chance.choice(candidates))

    def _next(self, pieces: list[str], sampling: Sampling, chance: random.Random) -> str:
        for order in (2, 1, 0):
            followers = self._followers.get(tuple(pieces[len(pieces) - order :]))
            if followers:
                return _sample(followers, sampling, chance)
        return END


def _sample(followers: "Counter[str]", sampling: Sampling, chance: random.Random) -> str:
    ranked = sorted(followers.items(), key=lambda item: (-item[1], item[0]))
    if sampling.temperature == 0:
        return ranked[0][0]
    weights = [count ** (1 / sampling.temperature) for _, count in ranked]
    total, kept, mass = sum(weights), 0, 0.0
    for weight in weights:
        kept += 1
        mass += weight
        if mass >= sampling.top_p * total:
            break
    return chance.choices([piece for piece, _ in ranked[:kept]], weights[:kept])[0]
