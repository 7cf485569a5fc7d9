"""all-MiniLM-L6-v2 in numpy: BERT with 6 layers, mean pooling, unit length.

Guarantees: the weights are the published ones (SHA-256 checked); a text's vector does not depend on
what it is batched with, beyond float32 rounding. Texts are cut at 256 tokens, as the model was
trained; the count reported is of the tokens that were computed.
"""

import hashlib
from pathlib import Path

import numpy as np
from safetensors.numpy import load
from tokenizers import Tokenizer

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENS_MAX = 256
LAYERS = 6
HEADS = 12
WIDTH = 384
LAYER_NORM_EPSILON = np.float32(1e-12)
PACK_TOKENS = 512  # texts computed together; more no longer fits the cache of one core


class Encoder:
    """Texts to vectors."""

    def __init__(self, folder: Path) -> None:
        """Load weights and tokenizer. Raises ValueError when the weights are not the published."""
        weights = (folder / "model.safetensors").read_bytes()
        digest = hashlib.sha256(weights).hexdigest()
        if digest != WEIGHTS_SHA256:
            raise ValueError(f"model.safetensors has SHA-256 {digest}, expected {WEIGHTS_SHA256}")
        self._weights = {name: np.float32(array) for name, array in load(weights).items()}
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(TOKENS_MAX)
        self._tokenizer.no_padding()

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Vectors [n, 384] float32 of unit length, and token counts [n] int32."""
        encoded = [item.ids for item in self._tokenizer.encode_batch(texts)]
        vectors = np.empty((len(texts), WIDTH), dtype=np.float32)
        start = 0
        while start < len(encoded):
            end, tokens = start, 0
            while end < len(encoded) and (tokens == 0 or tokens + len(encoded[end]) <= PACK_TOKENS):
                tokens += len(encoded[end])
                end += 1
            vectors[start:end] = self._forward(encoded[start:end])
            start = end
        return vectors, np.array([len(ids) for ids in encoded], dtype=np.int32)

    def _forward(self, texts: list[list[int]]) -> np.ndarray:
        """The texts' tokens one after the other as rows [tokens, 384]: no padding, so nothing is
        computed for it. Only attention knows where a text begins and ends."""
        ends = np.cumsum([len(ids) for ids in texts])
        spans = [slice(end - len(ids), end) for ids, end in zip(texts, ends, strict=True)]
        positions = np.concatenate([np.arange(len(ids)) for ids in texts])
        hidden = (
            self._weights["embeddings.word_embeddings.weight"][np.concatenate(texts)]
            + self._weights["embeddings.position_embeddings.weight"][positions]
            + self._weights["embeddings.token_type_embeddings.weight"][0]
        )
        hidden = self._normalise(hidden, "embeddings.LayerNorm")
        for layer in range(LAYERS):
            hidden = self._layer(hidden, spans, f"encoder.layer.{layer}")
        pooled = np.stack([hidden[span].mean(axis=0) for span in spans])
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

    def _layer(self, hidden: np.ndarray, spans: list[slice], name: str) -> np.ndarray:
        query, key, value = (
            self._linear(hidden, f"{name}.attention.self.{part}")
            .reshape(-1, HEADS, WIDTH // HEADS)
            .transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        attended = np.empty_like(hidden)
        for span in spans:
            scores = query[:, span] @ key[:, span].transpose(0, 2, 1)
            scores *= np.float32((WIDTH // HEADS) ** -0.5)
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=-1, keepdims=True)
            mixed = scores @ value[:, span]
            attended[span] = mixed.transpose(1, 0, 2).reshape(-1, WIDTH)
        attended = self._linear(attended, f"{name}.attention.output.dense")
        hidden = self._normalise(hidden + attended, f"{name}.attention.output.LayerNorm")
        inner = _gelu(self._linear(hidden, f"{name}.intermediate.dense"))
        outer = self._linear(inner, f"{name}.output.dense")
        return self._normalise(hidden + outer, f"{name}.output.LayerNorm")

    def _linear(self, hidden: np.ndarray, name: str) -> np.ndarray:
        product = hidden @ self._weights[f"{name}.weight"].T
        product += self._weights[f"{name}.bias"]
        return product

    def _normalise(self, hidden: np.ndarray, name: str) -> np.ndarray:
        centred = hidden - hidden.mean(axis=-1, keepdims=True)
        variance = (centred * centred).mean(axis=-1, keepdims=True)
        centred /= np.sqrt(variance + LAYER_NORM_EPSILON)
        centred *= self._weights[f"{name}.weight"]
        centred += self._weights[f"{name}.bias"]
        return centred


def _gelu(x: np.ndarray) -> np.ndarray:
    """Half x times (1 + erf(x / sqrt 2)), with the erf of Abramowitz and Stegun 7.1.26: within
    1.5e-7, which is float32's own resolution. In place where it can be: this is memory-bound."""
    z = np.abs(x)
    z *= np.float32(2**-0.5)
    t = z * np.float32(0.3275911)
    t += 1
    np.reciprocal(t, out=t)
    polynomial = t * np.float32(1.061405429)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        polynomial += np.float32(coefficient)
        polynomial *= t
    z *= z
    np.negative(z, out=z)
    np.exp(z, out=z)
    polynomial *= z
    np.subtract(1, polynomial, out=polynomial)
    np.copysign(polynomial, x, out=polynomial)
    polynomial += 1
    polynomial *= x
    polynomial *= np.float32(0.5)
    return polynomial
