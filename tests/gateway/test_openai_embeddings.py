"""OpenAI's embeddings request into a v2 infer, and its tensors into OpenAI's answer. No I/O."""

import base64
from array import array

import msgspec
import pytest

from meterplane.contracts.policy import ModelPolicy, UnitPrices
from meterplane.gateway import openai_embeddings
from meterplane.kernel.errors import CallerError, WorldError

MODEL = ModelPolicy(
    name="e",
    upstream="e",
    adapter="embedding",
    prices=UnitPrices(input_token_pico=1, output_token_pico=0, request_pico=0),
    context_tokens_max=256,
    output_tokens_max=0,
    output_tokens_default=0,
)


def parse(**changes):
    return openai_embeddings.parse(msgspec.json.encode({"model": "e", "input": "x"} | changes))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": ["x", ""]}, "input"),
        ({"input": ["x"] * 2049}, "input"),
        ({"input": [[1, 2]]}, "input"),
        ({"input": 7}, "input"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"dimensions": "many"}, "dimensions"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(change, field):
    with pytest.raises(CallerError) as refused:
        parse(**change)
    assert refused.value.status == 400
    assert (refused.value.field or "").startswith(field)


def test_the_bound_is_above_any_tokenizer_that_works_on_bytes():
    bounds = parse(input=["né", "b"]).bounds(MODEL)
    assert (bounds.tokens_in_max, bounds.tokens_out_max, bounds.rows) == (3 + 1 + 2 * 2, 0, 2)


def test_texts_go_upstream_and_vectors_come_back_binary():
    work = parse(input=["a", "b"])
    sent = msgspec.json.decode(openai_embeddings.upstream_body(work, MODEL))
    assert sent["inputs"] == [
        {"name": "TEXT", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]}
    ]
    assert [each["name"] for each in sent["outputs"]] == ["EMBEDDING", "TOKENS"]


def prefix(tokens, shape):
    outputs = [
        {"name": "EMBEDDING", "shape": shape, "parameters": {"binary_data_size": 1}},
        {"name": "TOKENS", "shape": [len(tokens)], "data": tokens},
    ]
    return msgspec.json.encode({"outputs": outputs})


VECTORS = array("f", [0.5, -1.0, 0.25, 2.0, 0.0, 1.5]).tobytes()


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_vectors_keep_their_order_and_their_bits(encoding):
    tokens, width = openai_embeddings.read_answer(prefix([3, 4], [2, 3]), VECTORS)
    request = parse(input=["a", "b"], encoding_format=encoding).body
    answer = msgspec.json.decode(openai_embeddings.answer(request, VECTORS, width, sum(tokens)))
    assert [item["index"] for item in answer["data"]] == [0, 1]
    assert answer["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    rows = [item["embedding"] for item in answer["data"]]
    if encoding == "base64":
        rows = [array("f", base64.b64decode(row)).tolist() for row in rows]
    assert rows == [[0.5, -1.0, 0.25], [2.0, 0.0, 1.5]]


@pytest.mark.parametrize("asked", [None, 3])
def test_the_models_own_dimensions_may_be_asked_for(asked):
    request = parse(dimensions=asked).body
    assert openai_embeddings.answer(request, VECTORS[:12], 3, 1)


def test_other_dimensions_are_refused_with_those_it_has():
    with pytest.raises(CallerError, match="3 dimensions") as refused:
        openai_embeddings.answer(parse(dimensions=2).body, VECTORS[:12], 3, 1)
    assert refused.value.field == "dimensions"


@pytest.mark.parametrize(
    ("head", "tensors"),
    [
        (b"", VECTORS),
        (b"{}", VECTORS),
        (prefix([3], [2, 3]), VECTORS),
        (prefix([3, 4], [2, 3]), VECTORS[:-1]),
        (prefix([3, 4], [6]), VECTORS),
        (prefix(["many", 4], [2, 3]), VECTORS),
    ],
)
def test_an_answer_that_cannot_be_measured_cannot_be_sold(head, tensors):
    with pytest.raises(WorldError) as refused:
        openai_embeddings.read_answer(head, tensors)
    assert refused.value.status == 502
