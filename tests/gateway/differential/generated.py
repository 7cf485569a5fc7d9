"""`generate` and `generate_stream`."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tests.gateway.differential.case import Case, encoded


def cases() -> Iterator[Case]:
    """All of them."""
    yield from about_any_model()
    yield from about_text()


def generate(document: Any, model: str, difference: str = "") -> list[Case]:
    """The same body to `generate` and to `generate_stream`."""
    body = document if isinstance(document, bytes) else encoded(document)
    return [
        Case("POST", f"/v2/models/{{}}/{verb}", body, {}, model, difference)
        for verb in ("generate", "generate_stream")
    ]


def about_any_model() -> Iterator[Case]:
    """Models that answer once, often, never, or fail."""
    yield from generate({"TEXT": "a", "COUNT": 1}, "several")
    yield from generate({"TEXT": "\u20ac\n", "COUNT": 1, "id": "9"}, "several")
    yield from generate({"TEXT": ["a"], "COUNT": [1]}, "several")
    yield from generate({"TEXT": '"error":"model_name":"several"', "COUNT": 1}, "several")
    for body in (
        {"TEXT": "a", "COUNT": 0},
        {"TEXT": "a", "COUNT": 2},
        {"TEXT": "a", "COUNT": 3},
        {"TEXT": "a", "COUNT": 1, "FAIL": True},
    ):
        whole, streamed = generate(body, "several")
        yield replace(whole, difference="error in a success")
        yield streamed
    whole, streamed = generate({"TEXT": "a", "COUNT": 0, "FAIL": True}, "several")
    yield whole
    yield replace(streamed, difference="error as an event")
    for body in ({"TEXT": "a"}, {"TEXT": "a", "COUNT": "x"}, {"TEXT": 1, "COUNT": 1},
                 {"TEXT": ["a", "b"], "COUNT": 1}, {"TEXT": None, "COUNT": 1},
                 {"TEXT": {"a": 1}, "COUNT": 1}, {"TEXT": "a", "COUNT": 1.5},
                 {"TEXT": "a", "COUNT": 1, "id": 3}, {}):  # fmt: skip
        yield from generate(body, "several")
    yield from generate({"TEXT": "a", "COUNT": 1, "surprise": 1}, "several")
    for broken in (b"", b"{", b"[]", b"1", b'{"TEXT":"a","COUNT":1}x'):
        yield from generate(broken, "several", "unreadable")
    twice = generate(b'{"TEXT":"a","COUNT":7,"COUNT":1}', "several", "twice in generate")
    once = generate({"TEXT": "a", "COUNT": 1}, "several")
    for case, as_if in zip(twice, once, strict=True):
        yield replace(case, as_if=as_if)
    for name in ("sequence_id", "priority", "triton_enable_empty_final_response"):
        yield from generate({"TEXT": "a", "COUNT": 1, name: 1}, "several", "not allowed")
    nested = {"TEXT": "a", "COUNT": 1, "parameters": {"sequence_id": 1}}
    yield from generate(nested, "several", "not allowed")
    for data in ([1, 2.5], 1, [[1], [2]], [], "a"):
        yield from generate({"INPUT0": data}, "identity")
    yield from generate({"INPUT0": [1, 2, 3, 4], "INPUT1": [1, 2, 3, 4]}, "add_sub")
    yield from generate({"IN_FP32": 1}, "every_type")
    for verb in ("generate", "generate_stream"):
        path = f"/v2/models/{{}}/{verb}"
        body = encoded({"TEXT": "a", "COUNT": 1})
        yield Case("GET", path, model="several", difference="method")
        yield Case("POST", path, body, {"Accept-Encoding": "gzip"}, "several")
        packed, how = gzip.compress(body), {"Content-Encoding": "gzip"}
        as_if = Case("POST", path, body, {}, "several")
        yield Case("POST", path, packed, how, "several", "encoding in generate", as_if)


def about_text() -> Iterator[Case]:
    """A text engine, which is counted on the way."""
    sampling = json.dumps({"max_tokens": 7, "seed": 11})
    body = {"text_input": "Tell me of budgets", "sampling_parameters": sampling}
    for extra in (
        {},
        {"id": "mine"},
        {"exclude_input_in_output": True},
        {"return_finish_reason": True},
        {"return_num_input_tokens": True, "return_num_output_tokens": True},
    ):
        yield Case("POST", "/v2/models/{}/generate", encoded(body | extra), {}, "tiny-lm")
        streamed = body | extra | {"stream": True}
        yield Case("POST", "/v2/models/{}/generate_stream", encoded(streamed), {}, "tiny-lm")
