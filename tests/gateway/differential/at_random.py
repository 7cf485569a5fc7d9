"""Infer requests of any shape of request, one in four spoilt, from a seed."""

import gzip
import json
import random
import zlib
from dataclasses import replace
from typing import Any

import numpy as np

from tests.gateway.differential.case import INFER, LENGTH, Case, encoded


def cases(chance: random.Random, count: int) -> list[Case]:
    """Requests to the model that takes every datatype."""
    return [_random_infer(chance) for _ in range(count)]


def spoilt(chance: random.Random, count: int) -> list[Case]:
    """Plain requests with their bodies changed in one place; the length of the head stays."""
    return [_spoilt(chance, case) for case in cases(chance, count)]


def _spoilt(chance: random.Random, case: Case) -> Case:
    body = bytearray(_unpacked(case))
    at, fault = chance.randrange(len(body)), chance.randrange(5)
    if fault == 0:
        body[at] ^= 1 << chance.randrange(8)
    elif fault == 1:
        del body[at : at + chance.randint(1, 4)]
    elif fault == 2:
        body[at:at] = body[at : at + chance.randint(1, 40)]
    elif fault == 3:
        body[at] = chance.choice(b'"{}[],:0-.eE \\\x00')
    else:
        other = chance.randrange(len(body))
        body[at], body[other] = body[other], body[at]
    kept = {name: each for name, each in case.headers.items() if name != "Content-Encoding"}
    return replace(case, body=bytes(body), headers=kept)


def once(case: Case) -> Case:
    """The same request with each name once, the last; itself where none comes twice."""
    length = int(case.headers.get(LENGTH, len(case.body)))
    twice = False

    def last(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        twice = twice or len(dict(pairs)) < len(pairs)
        return dict(pairs)

    document = json.loads(case.body[:length], object_pairs_hook=last)
    if not twice:
        return case
    head = encoded(document)
    headers = case.headers | ({LENGTH: str(len(head))} if LENGTH in case.headers else {})
    return replace(case, body=head + case.body[length:], headers=headers)


def _unpacked(case: Case) -> bytes:
    encoding = case.headers.get("Content-Encoding")
    if encoding is None:
        return case.body
    return gzip.decompress(case.body) if encoding == "gzip" else zlib.decompress(case.body)


WHOLE = {"INT8": 8, "INT16": 16, "INT32": 32, "INT64": 64, "UINT8": 8, "UINT16": 16, "UINT32": 32}


def _random_infer(chance: random.Random) -> Case:
    kinds = chance.sample([*WHOLE, "BOOL", "FP32", "FP64", "BYTES"], chance.randint(1, 4))
    inputs, tensors = [], b""
    for kind in kinds:
        tensor, raw = _random_tensor(chance, kind)
        inputs.append(tensor)
        tensors += raw
    document: dict[str, Any] = {"inputs": inputs}
    if chance.random() < 0.5:
        document["id"] = "".join(chance.choices('ab"\\\u00e9/\u4e16 ', k=chance.randint(1, 6)))
    if chance.random() < 0.3:
        document["parameters"] = {"binary_data_output": chance.random() < 0.5}
    if chance.random() < 0.6:
        document["outputs"] = [_random_output(chance, kind) for kind in kinds]
    if chance.random() < 0.25:
        _spoil(chance, document)
    headers = {}
    head = encoded(document)
    if tensors or chance.random() < 0.1:
        headers[LENGTH] = str(len(head))
    body = head + tensors
    packer = chance.choice([None, None, "gzip", "deflate"])
    if packer:
        headers["Content-Encoding"] = packer
        body = gzip.compress(body) if packer == "gzip" else zlib.compress(body)
    if chance.random() < 0.4:
        headers["Accept-Encoding"] = chance.choice(["gzip", "deflate", "deflate, gzip;q=0.5"])
    return Case("POST", INFER, body, headers, "every_type")


def _random_tensor(chance: random.Random, kind: str) -> tuple[dict[str, Any], bytes]:
    length = chance.choice([0, 1, 1, 2, 3, 40])
    array = _random_array(chance, kind, length)
    tensor: dict[str, Any] = {"name": f"IN_{kind}", "shape": [length], "datatype": kind}
    if length == 0 or chance.random() < 0.5:
        return tensor | {"data": list(array) if kind == "BYTES" else array.tolist()}, b""
    if kind == "BYTES":
        texts = [text.encode() for text in array]
        raw = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    else:
        raw = array.tobytes()
    return tensor | {"parameters": {"binary_data_size": len(raw)}}, raw


def _random_array(chance: random.Random, kind: str, length: int) -> Any:
    if kind == "BYTES":
        return [
            "".join(chance.choices("ab\u00e9\u0000\n", k=chance.randint(0, 9)))
            for _ in range(length)
        ]
    if kind == "BOOL":
        return np.array([chance.random() < 0.5 for _ in range(length)], bool)
    if kind in WHOLE:
        signed = not kind.startswith("U")
        low = -(2 ** (WHOLE[kind] - 1)) if signed else 0
        values = [chance.randint(low, low + 2 ** WHOLE[kind] - 1) for _ in range(length)]
        return np.array(values, kind.lower())
    values = [chance.gauss(0, 1) * 10 ** chance.randint(-30, 30) for _ in range(length)]
    return np.array(values, np.float32 if kind == "FP32" else np.float64)


def _random_output(chance: random.Random, kind: str) -> dict[str, Any]:
    output: dict[str, Any] = {"name": f"OUT_{kind}"}
    if chance.random() < 0.5:
        output["parameters"] = {"binary_data": chance.random() < 0.5}
    return output


def _spoil(chance: random.Random, document: dict[str, Any]) -> None:
    """One fault that both parsers read and the model's own checks find."""
    tensor = chance.choice(document["inputs"])
    fault = chance.randrange(6)
    if fault == 0:
        tensor["name"] = "IN_NOTHING"
    elif fault == 1:
        tensor["datatype"] = chance.choice(["FP16", "INT4", "bool", "STRING"])
    elif fault == 2:
        tensor["shape"] = [tensor["shape"][0] + chance.choice([1, 5])]
    elif fault == 3:
        tensor["shape"] = [1, *tensor["shape"]]
    elif fault == 4:
        document["inputs"].append(tensor)
    else:
        document.setdefault("outputs", []).append({"name": "OUT_NOTHING"})
