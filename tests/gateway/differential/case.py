"""One request to both, and what requests are made of.

A path names a model as Triton does; whoever sends it through the gateway puts in the name it is
sold by. `difference` is a row of the table in `test_differential`: how the answers must differ.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

INFER = "/v2/models/{}/infer"
LENGTH = "Inference-Header-Content-Length"
TWO = {"name": "INPUT0", "shape": [2], "datatype": "FP32", "data": [1, 2.5]}
RAW_TWO = {"name": "INPUT0", "shape": [2], "datatype": "FP32"}
BYTES_OF_TWO = np.array([1, 2.5], np.float32).tobytes()
PAIR = [
    {"name": f"INPUT{number}", "shape": [2, 4], "datatype": "INT32", "data": list(range(8))}
    for number in range(2)
]


@dataclass(frozen=True)
class Case:
    """One request. `{}` in the path is the model's name.

    `as_if`: where the gateway serves what Triton does not, the request that Triton answers like it.
    """

    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    model: str = "identity"
    difference: str = ""
    as_if: "Case | None" = None


def encoded(document: Any) -> bytes:
    """JSON as a client writes it."""
    return json.dumps(document, separators=(",", ":")).encode()


def infer(document: Any, model: str = "identity", difference: str = "", **headers: str) -> Case:
    """An infer request whose body is JSON, or bytes as they are."""
    body = document if isinstance(document, bytes) else encoded(document)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Case("POST", INFER, body, named, model, difference)


def binary(
    head: Any, tensors: bytes, model: str = "identity", difference: str = "", length: str = ""
) -> Case:
    """An infer request with tensors behind its JSON."""
    written = head if isinstance(head, bytes) else encoded(head)
    headers = {LENGTH: length or str(len(written))}
    return Case("POST", INFER, written + tensors, headers, model, difference)
