"""Random bytes and random documents, from a seed: what callers might send and no client would."""

import json
import random
import re
from copy import deepcopy
from itertools import pairwise
from typing import Any

# What breaks readers of numbers, of texts and of trees; `RAW` ones are not what `json` would write.
RAW = [
    "1e400", "-1e400", "1E-400", "1" * 400, "-0", "0.0", "1.0", "01", "+1", ".5", "1.", "NaN",
    "Infinity", "9223372036854775808", "18446744073709551616", "2147483648", "-9223372036854775809",
    '"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"\\x"', '"a\nb"', '"', "[", "{", "]", "}", "",
    "[" * 2000 + "]" * 2000, '{"a":' * 600 + "1" + "}" * 600, "nul", "tru", "//", "/**/",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 7, 128, 4096, 2**31 - 1, 2**31, 2**53, 2**63 - 1, 0.5, -0.5,
    1e300, "", "a", "auto", "text", "1", "é", "\U0001f600", "a" * 3000, "\x00", "\x7f", "../..",
    "a\r\nb: c", "{{ x }}", [], [[]], [None], [1, 2, 3], [-1], [2**40], ["a", "b"], [["a"]],
    ["a", 1], [[1, 2], [3]], [""] * 40, {}, {"a": 1}, {"type": "text", "text": "a"},
    {"include_usage": True},
    [{"type": "text", "text": "a"}], [{"type": "image_url", "image_url": {"url": "http://x/"}}],
]  # fmt: skip
# Names that mean something to one of the servers behind us, and that no caller may say.
FORBIDDEN = [
    "lora_path", "lora_request", "lora_task_id", "lora_weights", "lora_config", "prompt_table",
    "sequence_id", "sequence_start", "shared_memory_region", "shared_memory_byte_size",
    "shared_memory_offset", "priority", "timeout", "triton_enable_empty_final_response",
    "binary_data", "headers", "best_of", "prompt_embeds", "guided_json", "structured_outputs",
    "chat_template", "add_generation_prompt", "mm_processor_kwargs", "kv_transfer_params",
    "cache_salt", "request_id", "documents", "image", "__class__", "extra_body", "\x00", "",
]  # fmt: skip
KNOWN = [
    "model", "messages", "prompt", "input", "stream", "stream_options", "max_tokens", "n", "seed",
    "max_completion_tokens", "temperature", "top_p", "stop", "user", "metadata", "logprobs", "echo",
    "top_logprobs", "tools", "top_k", "suffix", "role", "content", "name", "tool_calls", "type",
    "text", "refusal", "dimensions", "encoding_format", "inputs", "outputs", "id", "parameters",
    "shape", "datatype", "data", "binary_data_output", "binary_data_size", "classification",
    "text_input", "sampling_parameters", "sampling_param_max_tokens", "sampling_param_n",
    "beam_width", "num_return_sequences", "exclude_input_in_output", "return_num_input_tokens",
    "streaming", "ignore_eos", "frequency_penalty", "presence_penalty", "INPUT0", "OUTPUT0",
]  # fmt: skip
_PLACE = re.compile(r'"@(\d+)@"')

HTTP_WORDS = [
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b",", b";", b"\xff", b"\x80",
    b"?",
    b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Content-Length: 99999999\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Host: x\r\n",
    b"Transfer-Encoding : chunked\r\n", b"Connection: close\r\n", b"Connection: Upgrade\r\n",
    b"Upgrade: h2c\r\n", b"Expect: 100-continue\r\n", b"Authorization: Bearer x\r\n", b" HTTP/1.1",
    b" HTTP/1.0", b" HTTP/0.9", b"GET ", b"POST ", b"HEAD ", b"CONNECT ", b"PRI * HTTP/2.0\r\n\r\n",
    b"0\r\n\r\n", b"3\r\nabc\r\n", b"ffffffff\r\n", b"fffffffffffffffff\r\n", b"http://a/", b"*",
    b"Content-Encoding: gzip\r\n", b"Inference-Header-Content-Length: 3\r\n", b"A" * 5000,
    b"A: b\r\n" * 101, b"/../", b"%00", b"%2f", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
]  # fmt: skip


def mutate_bytes(rng: random.Random, data: bytes, words: list[bytes], times: int) -> bytes:
    """Some bytes changed, left out, doubled, moved, or words put between them."""
    changed = bytearray(data)
    for _ in range(times):
        at = rng.randrange(len(changed) + 1)
        kind = rng.randrange(6)
        if kind == 0 and changed:
            changed[at % len(changed)] = rng.randrange(256)
        elif kind == 1:
            del changed[at : at + rng.choice((1, 1, 2, 8, 40))]
        elif kind == 2:
            changed[at:at] = changed[at : at + rng.choice((1, 4, 30))]
        elif kind == 3 and changed:
            changed[at % len(changed)] ^= 1 << rng.randrange(8)
        elif kind == 4:
            other = rng.randrange(len(changed) + 1)
            part = changed[other : other + rng.randrange(1, 40)]
            changed[at:at] = part
        else:
            changed[at:at] = rng.choice(words)
    return bytes(changed)


def cut(rng: random.Random, data: bytes, pieces_max: int = 6) -> list[bytes]:
    """In pieces, at random places."""
    places = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(pieces_max)))
    edges = [0, *places, len(data)]
    return [data[start:end] for start, end in pairwise(edges) if start < end]


def mutate_document(rng: random.Random, document: dict[str, Any], times: int) -> bytes:
    """A JSON body: a tree changed here and there, then, at times, its text."""
    raws: list[str] = []
    tree = json.loads(json.dumps(document))
    for _ in range(times):
        _change(rng, tree, raws)
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.7)
    text = _PLACE.sub(lambda found: raws[int(found[1])], text)
    if rng.random() < 0.15:
        text = _doubled(rng, text)
    body = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        words = [b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\u", b"\xff", b"\xc3", b"null"]
        body = mutate_bytes(rng, body, words, rng.randrange(1, 4))
    return body


def _value(rng: random.Random, raws: list[str]) -> Any:
    if rng.random() < 0.15:
        raws.append(rng.choice(RAW))
        return f"@{len(raws) - 1}@"
    if rng.random() < 0.1:
        return {rng.choice(KNOWN + FORBIDDEN): deepcopy(rng.choice(VALUES))}
    return deepcopy(rng.choice(VALUES))  # it may be changed further


def _change(rng: random.Random, tree: Any, raws: list[str]) -> None:
    """One change in a place picked by walking down."""
    while True:
        below = [each for each in _children(tree) if isinstance(each, dict | list) and each]
        if not below or rng.random() < 0.4:
            break
        tree = rng.choice(below)
    kind = rng.randrange(4)
    if isinstance(tree, dict):
        name = rng.choice(list(tree)) if tree and kind < 3 else rng.choice(KNOWN + FORBIDDEN)
        if kind == 2:
            tree.pop(name, None)
        else:
            tree[name] = _value(rng, raws)
    elif isinstance(tree, list):
        if kind == 2 and tree:
            tree.pop(rng.randrange(len(tree)))
        elif kind == 3 and tree:
            tree.append(deepcopy(rng.choice(tree)))
        else:
            tree.insert(rng.randrange(len(tree) + 1), _value(rng, raws))


def _children(tree: Any) -> list[Any]:
    return list(tree.values()) if isinstance(tree, dict) else list(tree)


def _doubled(rng: random.Random, text: str) -> str:
    """A name of the text said twice, with another value."""
    places = [found.start() for found in re.finditer(r'(?<=[{ ])"[a-z_A-Z0-9]+":', text)]
    if not places:
        return text
    at = rng.choice(places)
    name = text[at : text.index(":", at) + 1]
    return text[:at] + name + json.dumps(rng.choice(VALUES)) + ", " + text[at:]
