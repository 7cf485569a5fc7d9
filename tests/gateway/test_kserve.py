"""What of an infer request is read, refused and forwarded, byte for byte. No I/O."""

import msgspec
import pytest

from meterplane.contracts.policy import ModelPolicy, UnitPrices
from meterplane.contracts.serving import ModelServing, Target
from meterplane.gateway.surface import Bounds, Offer
from meterplane.gateway.surfaces import kserve_generate, kserve_infer, kserve_models
from meterplane.kernel.errors import CallerError

INPUT = {"name": "A", "shape": [2, 3], "datatype": "FP32", "data": [1]}
PRICES = UnitPrices(input_token_pico=0, output_token_pico=0, request_pico=1000)
PINNED = [Target(name=version, upstream="m", version=version) for version in ("2", "10")]


def offer(adapter="tensor", **serving):
    """A model as a key may use it; `serving` is what its catalog says."""
    model = ModelPolicy(
        name="m",
        upstream="m",
        adapter=adapter,
        prices=PRICES,
        context_tokens_max=0,
        output_tokens_max=64,
        output_tokens_default=16,
    )
    return Offer(model, ModelServing(**{"name": "m", "version": 1, "targets": [
        Target(upstream="m")]} | serving), PRICES)  # fmt: skip


def parse(body, length=None):
    encoded = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return kserve_infer.parse("m", "", encoded, length)


def generate(body, stream=False):
    encoded = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return kserve_generate.parse("m", "", encoded, stream=stream)


def refusal(body, length=None):
    with pytest.raises(CallerError) as refused:
        parse(body, length).bounds(offer())
    assert refused.value.status == 400
    return refused.value.message


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": []},
        {"inputs": [INPUT] * 65},
        {"inputs": [INPUT], "outputs": [{"name": "B"}] * 65},
        {"inputs": [INPUT | {"shape": [-1]}]},
        {"inputs": [INPUT | {"shape": [2**31]}]},
        {"inputs": [INPUT | {"shape": [1.5]}]},
        {"inputs": [{"name": "A", "shape": [1]}]},
        {"inputs": INPUT},
        {"inputs": [INPUT], "id": 7},
        {"inputs": [INPUT], "parameters": {"binary_data_output": {"nested": 1}}},
    ],
)
def test_what_is_not_an_infer_request_is_refused(body):
    assert refusal(body)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"inputs": [INPUT], "surprise": 1}, "surprise"),
        ({"inputs": [INPUT | {"surprise": 1}]}, "surprise"),
        ({"inputs": [INPUT], "outputs": [{"name": "B", "surprise": 1}]}, "surprise"),
        ({"inputs": [INPUT], "parameters": {"sequence_id": 1}}, "sequence_id"),
        ({"inputs": [INPUT], "parameters": {"priority": 1}}, "priority"),
        ({"inputs": [INPUT], "parameters": {"timeout": 1}}, "timeout"),
        ({"inputs": [INPUT], "parameters": {"headers": "x"}}, "headers"),
        ({"inputs": [INPUT | {"parameters": {"shared_memory_region": "r"}}]}, "shared_memory"),
        ({"inputs": [INPUT | {"parameters": {"binary_data": True}}]}, "binary_data"),
        (
            {
                "inputs": [INPUT],
                "outputs": [{"name": "B", "parameters": {"shared_memory_offset": 1}}],
            },
            "shared_memory_offset",
        ),
        (
            b'{"inputs":[{"name":"A","shape":[1],"datatype":"FP32","parameters":'
            b'{"\\u0073hared_memory_region":"r"}}]}',
            "shared_memory_region",
        ),
    ],
)
def test_what_could_reach_beyond_the_request_is_refused_by_name(body, named):
    assert named in refusal(body)


def test_a_parameter_the_catalog_lists_is_forwarded():
    work = parse({"inputs": [INPUT], "parameters": {"temperature": 0.5}})
    listed = offer(parameters=["temperature"])
    assert work.bounds(listed) == Bounds(0, 0, 2)
    assert msgspec.json.decode(work.upstream(listed)[0])["parameters"] == {"temperature": 0.5}
    with pytest.raises(CallerError, match="temperature"):
        work.bounds(offer(parameters=["top_p"]))


def test_a_name_that_comes_twice_is_forwarded_once_as_it_was_checked():
    work = parse(
        b'{"inputs":[{"name":"A","shape":[1],"datatype":"FP32",'
        b'"parameters":{"shared_memory_region":"r"},"parameters":{},"data":[1]}],'
        b'"parameters":{"headers":"x"},"parameters":{}}'
    )
    assert work.upstream(offer())[0] == (
        b'{"inputs":[{"name":"A","shape":[1],"datatype":"FP32","parameters":{},"data":[1]}],'
        b'"parameters":{}}'
    )


def test_tensor_data_is_not_re_encoded():
    data = b"[[1.50000000000000000000000001, 1e-400,\n 0.1],[ 1,2,3 ]]"
    body = b'{"inputs":[{"name":"A","shape":[2,3],"datatype":"FP64","data":' + data + b"}]}"
    work = parse(body)
    assert work.upstream(offer()) == (body, None)
    assert work.bounds(offer()) == Bounds(0, 0, 2)


def test_binary_tensors_follow_the_new_head_untouched():
    head = msgspec.json.encode(
        {
            "id": "7",
            "inputs": [INPUT | {"parameters": {"binary_data_size": 4}}],
            "outputs": [{"name": "B", "parameters": {"binary_data": True, "classification": 2}}],
            "parameters": {"binary_data_output": True},
        }
    )
    tensors = b"\x00{]\xff"
    work = parse(b" " + head + tensors, str(len(head) + 1).encode())
    body, json_bytes = work.upstream(offer())
    assert body[json_bytes:] == tensors
    assert msgspec.json.decode(body[:json_bytes]) == msgspec.json.decode(head)
    assert (work.bytes_in, work.tensor_bytes_in) == (len(head) + 5, 4)


@pytest.mark.parametrize("length", [b"x", b"-1", b"+3", b"3.0", b"999999", b"9" * 40, b""])
def test_a_head_length_that_cannot_be_is_refused(length):
    assert "Inference-Header-Content-Length" in refusal({"inputs": [INPUT]}, length)


def test_a_tensor_without_dimensions_is_one_row():
    assert parse({"inputs": [INPUT | {"shape": []}]}).bounds(offer()).rows == 1


def test_deep_nesting_is_refused_before_triton_has_to_recurse():
    deep = b"[" * 100_000 + b"]" * 100_000
    assert refusal(b'{"inputs":[{"name":"A","shape":[1],"datatype":"FP32","data":' + deep + b"}]}")


def test_a_head_of_no_bytes_is_one_raw_tensor():
    work = parse(b"\x00\x01\x02", b"0")
    assert work.upstream(offer()) == (b"\x00\x01\x02", 0)
    assert work.bounds(offer()) == Bounds(0, 0, 1)
    assert (work.bytes_in, work.tensor_bytes_in) == (3, 3)


def test_a_raw_tensor_cannot_ask_a_model_for_outputs_its_catalog_does_not_list():
    with pytest.raises(CallerError, match="raw binary"):
        parse(b"\x00", b"0").bounds(offer(outputs=["B"]))


def test_only_tensors_of_the_catalogs_list_are_named():
    listed = offer(inputs=["A"], outputs=["B"])
    assert parse({"inputs": [INPUT], "outputs": [{"name": "B"}]}).bounds(listed)
    for body in (
        {"inputs": [INPUT | {"name": "SECRET"}]},
        {"inputs": [INPUT], "outputs": [{"name": "SECRET"}]},
    ):
        with pytest.raises(CallerError, match=r"'SECRET'.*it has"):
            parse(body).bounds(listed)


@pytest.mark.parametrize("outputs", [{}, {"outputs": []}])
def test_who_names_no_outputs_gets_those_of_the_catalogs_list(outputs):
    work = parse({"inputs": [INPUT]} | outputs)
    body, _ = work.upstream(offer(outputs=["B", "C"]))
    assert msgspec.json.decode(body)["outputs"] == [{"name": "B"}, {"name": "C"}]


def test_a_pinned_model_has_no_other_versions():
    pinned = offer(targets=PINNED).serving
    for version in ("", "2", "10"):
        kserve_models.check_version(pinned, version)
    for version in ("1", "3"):
        with pytest.raises(CallerError, match=f"version {version} is not found") as refused:
            kserve_models.check_version(pinned, version)
        assert refused.value.status == 404
    assert kserve_models.versions_of(pinned) == ["2", "10"]
    assert kserve_models.target_with("10", PINNED[0], pinned) is PINNED[1]
    assert kserve_models.target_with("", PINNED[0], pinned) is PINNED[0]
    for work in (
        kserve_infer.parse("m", "3", msgspec.json.encode({"inputs": [INPUT]}), None),
        kserve_generate.parse("m", "3", b"{}", stream=True),
    ):
        with pytest.raises(CallerError, match="version 3 is not found"):
            work.bounds(offer(targets=PINNED))


@pytest.mark.parametrize(
    "parse_one",
    [
        lambda version: kserve_infer.parse(
            "m", version, msgspec.json.encode({"inputs": [INPUT]}), None
        ),
        lambda version: kserve_generate.parse("m", version, b"{}", stream=False),
    ],
)
def test_a_fallback_does_not_stand_in_for_a_version(parse_one):
    assert parse_one("").bounds(offer(name="another"))
    assert parse_one("2").bounds(offer())
    with pytest.raises(CallerError, match="version 2 is not found"):
        parse_one("2").bounds(offer(name="another"))


def test_metadata_tells_only_what_is_offered():
    told = msgspec.json.decode(
        kserve_models.metadata(
            offer().model,
            offer(targets=PINNED, inputs=["A"], outputs=["B"]).serving,
            msgspec.json.encode(
                {
                    "name": "upstream-name",
                    "versions": ["1", "2", "3"],
                    "inputs": [{"name": "A"}, {"name": "SECRET"}],
                    "outputs": [{"name": "B"}, {"name": "SECRET"}],
                }
            ),
        )
    )
    expected = {"name": "m", "versions": ["2"], "inputs": [{"name": "A"}]}
    assert told == expected | {"outputs": [{"name": "B"}]}


@pytest.mark.parametrize(
    "name", ["sequence_id", "shared_memory_region", "priority", "headers", "triton_x", "parameters"]
)
def test_generate_refuses_names_that_reach_beyond_the_request(name):
    with pytest.raises(CallerError, match=name):
        generate({"INPUT0": 1, name: 1}).bounds(offer())
    with pytest.raises(CallerError, match=name):
        generate({"text_input": "x", name: 1}).bounds(offer("vllm"))


def test_generate_is_told_its_bound_also_when_it_did_not_say_one():
    work = generate({"text_input": "x"}, stream=True)
    assert work.bounds(offer("vllm")).tokens_out_max == 16
    sent = msgspec.json.decode(work.upstream_body(offer("vllm")))
    assert msgspec.json.decode(sent["sampling_parameters"]) == {"max_tokens": 16}
    assert sent["return_num_output_tokens"] is True
    greedy = generate({"text_input": "x", "sampling_parameters": '{"max_tokens":999}'})
    assert greedy.bounds(offer("vllm")).tokens_out_max == 64


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b'{"a":1}x', b"\xff", b"[" * 100_000])
def test_generate_refuses_what_is_not_an_object(body):
    with pytest.raises(CallerError) as refused:
        generate(body)
    assert refused.value.status == 400
