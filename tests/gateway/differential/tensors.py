"""`infer`: tensors as JSON and as bytes, and what may be asked of them."""

import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from tests.gateway.differential.case import (
    BYTES_OF_TWO,
    PAIR,
    RAW_TWO,
    TWO,
    Case,
    binary,
    encoded,
    infer,
)


def cases() -> Iterator[Case]:
    """All of them."""
    yield from about_json()
    yield from about_parameters()
    yield from about_binary()
    yield from about_datatypes()


def about_json() -> Iterator[Case]:
    """Bodies that are JSON, and bodies that nearly are."""
    yield infer({"inputs": [TWO]})
    yield infer({"inputs": [TWO], "id": "7"})
    yield infer({"inputs": [TWO], "id": ""})
    yield infer({"inputs": [TWO], "id": 'a"b\\c\u20ac'})
    yield infer({"inputs": [TWO], "id": '"model_name":"identity"'})
    yield infer(b' \n{"inputs" : [' + json.dumps(TWO, indent=1).encode() + b"]}\n ")
    yield infer({"inputs": [TWO | {"data": [[1], [2]]}]})
    yield infer({"inputs": [TWO], "outputs": []})
    yield infer({"inputs": [TWO], "outputs": [{"name": "OUTPUT0"}]})
    yield infer({"inputs": [TWO], "outputs": [{"name": "OUTPUT0"}] * 2})
    yield infer({"inputs": [TWO], "outputs": [{"name": "OUTPUT9"}]})
    yield infer({"inputs": [TWO | {"shape": [0], "data": []}]})
    yield infer({"inputs": [TWO | {"data": [1e-45, 3.4e38]}]})
    yield infer({"inputs": [TWO | {"data": [1e39, -1e39]}]})
    yield infer({"inputs": [TWO | {"name": "OTHER"}]})
    yield infer({"inputs": [TWO, TWO]})
    yield infer({"inputs": [TWO | {"datatype": "FP64"}]})
    yield infer({"inputs": [TWO | {"datatype": "WHAT"}]})
    yield infer({"inputs": [TWO | {"datatype": ""}]})
    yield infer({"inputs": [TWO | {"shape": [3]}]})
    yield infer({"inputs": [TWO | {"shape": [2, 1]}]})
    yield infer({"inputs": [TWO | {"shape": []}]})
    for data in (["a", 1], [None, 1], [True, 1], [{}, 1], "ab", 7, {"a": 1}, None, [1, 2, 3]):
        yield infer({"inputs": [TWO | {"data": data}]})
    yield infer({"inputs": [{"name": "INPUT0", "shape": [2], "datatype": "FP32"}]})
    for broken in (
        b"{",
        b"{]",
        b'{"inputs":[',
        b"nothing",
        b"\x00",
        encoded({"inputs": [TWO]}) + b"x",
    ):
        yield infer(broken, difference="unreadable")
    for wrong in (
        [],
        {},
        {"inputs": {}},
        {"inputs": [TWO], "id": 7},
    ):
        yield infer(wrong, difference="unreadable")
    yield infer({"inputs": [TWO | {"shape": [-1]}]}, difference="unreadable")
    yield infer({"inputs": [TWO | {"shape": [1.5]}]}, difference="unreadable")
    yield infer({"inputs": [TWO | {"shape": "2"}]}, difference="unreadable")
    for wrong in ({"inputs": []}, {"inputs": [7]}, {"inputs": [{}]}):
        yield infer(wrong, difference="refused either way")
    yield infer({"inputs": [TWO | {"data": [float("nan"), 1]}]}, difference="unreadable to us")
    yield infer(b"", difference="nothing")
    twice = infer(
        b'{"id":"first","id":"last","inputs":[' + encoded(TWO) + b"]}", difference="twice"
    )
    yield replace(twice, as_if=infer({"inputs": [TWO], "id": "last"}))
    for number in range(2):
        yield infer({"inputs": PAIR, "outputs": [{"name": f"OUTPUT{number}"}]}, "add_sub")
    yield infer({"inputs": PAIR}, "add_sub")
    yield infer({"inputs": PAIR[::-1]}, "add_sub")
    yield infer({"inputs": PAIR[:1]}, "add_sub")
    large = [each | {"shape": [9, 4], "data": list(range(36))} for each in PAIR]
    yield infer({"inputs": large}, "add_sub")
    yield infer({"inputs": [PAIR[0], PAIR[1] | {"shape": [1, 4], "data": [1, 2, 3, 4]}]}, "add_sub")
    text = {"name": "IN_BYTES", "shape": [1], "datatype": "BYTES", "data": ["break"]}
    yield infer({"inputs": [text]}, "every_type", "model failed")
    once = [
        {"name": "TEXT", "shape": [1], "datatype": "BYTES", "data": ["a"]},
        {"name": "COUNT", "shape": [1], "datatype": "INT32", "data": [1]},
    ]
    yield infer({"inputs": once}, "several", "unsupported")


def about_parameters() -> Iterator[Case]:
    """What may be asked of a request, an input and an output, and what may not."""
    for value in (True, False):
        yield infer({"inputs": [TWO], "parameters": {"binary_data_output": value}})
    for value in (1, "x"):
        yield infer({"inputs": [TWO], "parameters": {"binary_data_output": value}})
    yield infer({"inputs": [TWO], "parameters": {}})
    for asked in (
        {},
        {"binary_data": True},
        {"binary_data": False},
        {"classification": 1},
        {"classification": 2, "binary_data": True},
        {"classification": 99},
        {"classification": 0},
        {"classification": -1},
        {"classification": "x"},
        {"binary_data": "yes"},
        {"binary_data": 1},
    ):
        yield infer({"inputs": [TWO], "outputs": [{"name": "OUTPUT0", "parameters": asked}]})
        both = [{"name": "OUTPUT0", "parameters": asked}, {"name": "OUTPUT1"}]
        yield infer({"inputs": PAIR, "outputs": both}, "add_sub")
        yield infer({"inputs": PAIR, "outputs": both[::-1]}, "add_sub")
    for name, value in (("custom", 1), ("sequence_id", 7), ("priority", 1), ("timeout", 9_000_000)):
        yield infer({"inputs": [TWO], "parameters": {name: value}}, difference="not allowed")
    yield infer({"inputs": [TWO], "surprise": 1}, difference="not allowed")
    yield infer({"inputs": [TWO | {"surprise": 1}]}, difference="not allowed")
    yield infer(
        {"inputs": [TWO], "outputs": [{"name": "OUTPUT0", "x": 1}]}, difference="not allowed"
    )
    region = {"shared_memory_region": "r", "shared_memory_byte_size": 8}
    for shared in (region, region | {"shared_memory_offset": 0}):
        yield infer({"inputs": [RAW_TWO | {"parameters": shared}]}, difference="shared memory")
        outputs = [{"name": "OUTPUT0", "parameters": shared}]
        yield infer({"inputs": [TWO], "outputs": outputs}, difference="shared memory")


def about_binary() -> Iterator[Case]:
    """Tensors behind the JSON, and lengths that do not fit."""
    eight = RAW_TWO | {"parameters": {"binary_data_size": 8}}
    for outputs in (
        {},
        {"outputs": [{"name": "OUTPUT0", "parameters": {"binary_data": True}}]},
        {"parameters": {"binary_data_output": True}},
    ):
        yield binary({"inputs": [eight], "id": "x"} | outputs, BYTES_OF_TWO)
    yield binary({"inputs": [TWO]}, b"")
    for size in (4, 12):
        smaller = RAW_TWO | {"parameters": {"binary_data_size": size}}
        yield binary({"inputs": [smaller]}, BYTES_OF_TWO)
    for size in (-8, "8", 8.5, True):
        wrong = RAW_TWO | {"parameters": {"binary_data_size": size}}
        yield binary({"inputs": [wrong]}, BYTES_OF_TWO)
    yield binary({"inputs": [eight]}, BYTES_OF_TWO[:-1])
    yield binary({"inputs": [eight]}, BYTES_OF_TWO + b"x")
    yield binary({"inputs": [RAW_TWO | {"parameters": {}}]}, BYTES_OF_TWO)
    yield binary({"inputs": [eight | {"data": [1, 2]}]}, BYTES_OF_TWO)
    yield binary({"inputs": [eight | {"shape": [0], "parameters": {"binary_data_size": 0}}]}, b"")
    for length in ("99999", "-1"):
        yield binary({"inputs": [eight]}, BYTES_OF_TWO, "identity", "refused either way", length)
    for length in ("+3", "1.5"):
        yield binary({"inputs": [eight]}, BYTES_OF_TWO, "identity", "unreadable", length)
    yield binary({"inputs": [eight]}, BYTES_OF_TWO, "identity", "head length", "x")
    yield binary(b"", BYTES_OF_TWO, length="0")
    yield binary(b"", BYTES_OF_TWO[:-1], length="0")
    yield binary(b"", b"", length="0")
    yield binary(b"", BYTES_OF_TWO, "add_sub", length="0")
    mixed = [PAIR[0], PAIR[1] | {"parameters": {"binary_data_size": 32}}]
    del mixed[1]["data"]
    tensor = np.arange(8, dtype=np.int32).tobytes()
    yield binary({"inputs": mixed}, tensor, "add_sub")
    yield binary({"inputs": mixed[::-1], "outputs": [{"name": "OUTPUT1"}]}, tensor, "add_sub")


def about_datatypes() -> Iterator[Case]:
    """Every datatype, as JSON and as bytes, in both directions."""
    for name, data in (
        ("BOOL", [True, False]),
        ("INT8", [-128, 127]),
        ("INT16", [-(2**15), 2**15 - 1]),
        ("INT32", [-(2**31), 2**31 - 1]),
        ("INT64", [-(2**63), 2**63 - 1]),
        ("UINT8", [0, 255]),
        ("UINT16", [0, 2**16 - 1]),
        ("UINT32", [0, 2**32 - 1]),
        ("UINT64", [0, 2**64 - 1]),
        ("FP16", [1.5, -2]),
        ("BF16", [1.5, -2]),
        ("FP32", [0.1, -1e-40]),
        ("FP64", [0.1, 1e300]),
        ("BYTES", ["\u00e9\u4e16", "", '\u0000\n"\\']),
        ("INT8", [300]),
        ("UINT8", [-1]),
        ("INT32", [1.5]),
        ("INT64", [2**63]),
        ("BOOL", [1]),
        ("BYTES", [1]),
        ("BYTES", [["a"], ["b"]]),
    ):
        tensor = {"name": f"IN_{name}", "shape": [len(data)], "datatype": name, "data": data}
        for asked in ({}, {"binary_data": True}):
            outputs = [{"name": f"OUT_{name}", "parameters": asked}]
            yield infer({"inputs": [tensor], "outputs": outputs}, "every_type")
    for name, raw in (
        ("FP16", b"\0\x3e"),
        ("BF16", b"\xc0\x3f"),
        ("FP32", b"\0\0\xc0\x7f"),
        ("FP64", b"\0\0\0\0\0\0\xf0\xff"),
        ("BOOL", b"\x02"),
        ("BYTES", b"\x03\0\0\0\xff\0a"),
        ("BYTES", b"\x09\0\0\0\xff\0a"),
        ("BYTES", b"\0\0\0\0"),
        ("UINT64", b"\xff" * 8),
    ):
        size = {"parameters": {"binary_data_size": len(raw)}}
        tensor = {"name": f"IN_{name}", "shape": [1], "datatype": name} | size
        for asked in ({}, {"binary_data": True}):
            outputs = [{"name": f"OUT_{name}", "parameters": asked}]
            yield binary({"inputs": [tensor], "outputs": outputs}, raw, "every_type")
    one = {"name": "IN_FP32", "shape": [1], "datatype": "FP32", "data": [1]}
    yield infer({"inputs": [one], "outputs": [{"name": "OUT_FP64"}]}, "every_type")
