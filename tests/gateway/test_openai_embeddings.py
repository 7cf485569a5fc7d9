"""OpenAI's embeddings request into a v2 infer, and its tensors into OpenAI's answer. No I/O."""

import base64
import math
from array import array

import msgspec
import pytest

from meterplane.contracts.policy import ModelPolicy, UnitPrices
from meterplane.contracts.serving import ModelServing, Target
from meterplane.gateway.surface import Offer
from meterplane.gateway.surfaces import openai_embeddings
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


def offer(adapter="embedding", parameters=()):
    model = msgspec.structs.replace(MODEL, adapter=adapter)
    told = ModelServing(
        name="e", version=1, targets=[Target(upstream="e")], parameters=list(parameters)
    )
    return Offer(model, told, MODEL.prices)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": ["x", ""]}, "input"),
        ({"input": ["x"] * 2049}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": ["x", 1]}, "input"),
        ({"input": [1, [1]]}, "input"),
        ({"input": ["x", [1]]}, "input"),
        ({"input": [-1]}, "input"),
        ({"input": [[1], [2**31]]}, "input"),
        ({"input": [1.5]}, "input"),
        ({"input": [None]}, "input"),
        ({"input": 7}, "input"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"dimensions": "many"}, "dimensions"),
        ({"dimensions": 0}, "dimensions"),
    ],
)
def test_what_no_model_can_mean_is_refused_by_name(change, field):
    with pytest.raises(CallerError) as refused:
        parse(**change)
    assert refused.value.status == 400
    assert (refused.value.field or "").startswith(field)


def test_a_field_outside_the_models_allow_list_is_refused_and_never_dropped():
    work = parse(truncate=True)
    with pytest.raises(CallerError) as refused:
        work.bounds(offer())
    assert (refused.value.field, refused.value.code) == ("truncate", "unknown_parameter")
    assert work.bounds(offer(parameters=["truncate"])).rows == 1


@pytest.mark.parametrize(
    ("given", "pieces"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
    ],
)
def test_all_four_forms_of_an_input_are_read(given, pieces):
    assert parse(input=given).pieces == pieces


def test_the_bound_is_above_any_tokenizer_that_works_on_bytes():
    bounds = parse(input=["né", "b"]).bounds(offer())
    assert (bounds.tokens_in_max, bounds.tokens_out_max, bounds.rows) == (3 + 1 + 2 * 2, 0, 2)


def test_the_bound_of_each_input_is_at_most_the_context():
    assert parse(input=["x" * 9000, "y"]).bounds(offer()).tokens_in_max == 256 + 3


def test_token_ids_are_bounded_by_their_number_and_for_upstreams_that_take_them():
    work = parse(input=[[1, 2, 3], [4]])
    assert work.bounds(offer("openai")).tokens_in_max == 4 + 2 * 2
    with pytest.raises(CallerError) as refused:
        work.bounds(offer())  # and no tokenizer to make text of them
    assert (refused.value.status, refused.value.field) == (400, "input")


def test_texts_go_upstream_and_vectors_come_back_binary():
    work = parse(input=["a", "b"])
    sent = msgspec.json.decode(openai_embeddings.upstream_body(work.texts(offer())))
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


def answer(request, tensors=VECTORS, width=3, tokens=7, *, may_shorten=False):
    return msgspec.json.decode(
        openai_embeddings.answer(request, tensors, width, "e", tokens, may_shorten=may_shorten)
    )


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_vectors_keep_their_order_and_their_bits(encoding):
    tokens, width = openai_embeddings.read_answer(prefix([3, 4], [2, 3]), VECTORS, 2)
    request = parse(input=["a", "b"], encoding_format=encoding).request
    found = answer(request, VECTORS, width, sum(tokens))
    assert [item["index"] for item in found["data"]] == [0, 1]
    assert found["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert found["model"] == "e"
    rows = [item["embedding"] for item in found["data"]]
    if encoding == "base64":
        rows = [array("f", base64.b64decode(row)).tolist() for row in rows]
    assert rows == [[0.5, -1.0, 0.25], [2.0, 0.0, 1.5]]


@pytest.mark.parametrize("asked", [None, 3])
def test_the_models_own_dimensions_may_be_asked_for(asked):
    request = parse(dimensions=asked).request
    assert len(answer(request, VECTORS[:12])["data"][0]["embedding"]) == 3


@pytest.mark.parametrize(("asked", "may_shorten"), [(2, False), (4, False), (4, True)])
def test_other_dimensions_are_refused_with_those_it_has(asked, may_shorten):
    with pytest.raises(CallerError, match="3 dimensions") as refused:
        answer(parse(dimensions=asked).request, VECTORS[:12], may_shorten=may_shorten)
    assert refused.value.field == "dimensions"


def test_a_model_made_for_it_is_shortened_to_vectors_of_length_one():
    found = answer(parse(dimensions=2).request, may_shorten=True)
    rows = [item["embedding"] for item in found["data"]]
    assert [math.isclose(math.hypot(*row), 1, abs_tol=1e-6) for row in rows] == [True, True]
    assert rows[0][1] / rows[0][0] == pytest.approx(-2)


def test_a_vector_of_nothing_stays_nothing_when_it_is_shortened():
    zeros = array("f", [0.0, 0.0, 1.0]).tobytes()
    found = answer(parse(dimensions=2).request, zeros, may_shorten=True)
    assert found["data"][0]["embedding"] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("head", "tensors"),
    [
        (b"", VECTORS),
        (b"{}", VECTORS),
        (b"[]", VECTORS),
        (b"\xff", VECTORS),
        (b"[" * 100_000, VECTORS),
        (b'{"outputs":[7]}', VECTORS),
        (prefix([3], [2, 3]), VECTORS),
        (prefix([3, 4], [2, 3]), VECTORS[:-1]),
        (prefix([3, 4], [6]), VECTORS),
        (prefix([3, 4], [2, "3"]), VECTORS),
        (prefix([3, 4], [2, -3]), VECTORS),
        (prefix([], [0, 3]), b""),
        (prefix([3, 4], [2, 0]), b""),
        (prefix([3], [1, 3]), VECTORS[:12]),
        (prefix([3, 4, 5], [3, 2]), VECTORS),
        (prefix(["many", 4], [2, 3]), VECTORS),
        (prefix([-3, 4], [2, 3]), VECTORS),
        (prefix([3.5, 4], [2, 3]), VECTORS),
        (prefix([2**31, 4], [2, 3]), VECTORS),
    ],
)
def test_an_answer_that_cannot_be_measured_cannot_be_sold(head, tensors):
    with pytest.raises(WorldError) as refused:
        openai_embeddings.read_answer(head, tensors, 2)
    assert refused.value.status == 502
