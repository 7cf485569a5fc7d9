"""Random bodies to every surface, from a seed: read or refused as the caller's fault, never more.

Of what is accepted, what would reach a server is looked at: only names that somebody listed, each
once, and never more output than was reserved. `FUZZ_SEED` and `FUZZ_CASES` choose other cases.
"""

import json
import os
import random
import time
from collections import Counter

import pytest

from meterplane.gateway.surfaces import (
    kserve_generate,
    kserve_infer,
    openai_chat,
    openai_completions,
    openai_embeddings,
)
from meterplane.kernel.errors import CallerError
from tests.conftest import wait_until
from tests.gateway.deployments import let_in
from tests.gateway.fuzzing import mutate_document
from tests.gateway.recording import Shop, violations

SEED = int(os.environ.get("FUZZ_SEED", "20261125"))
CASES = int(os.environ.get("FUZZ_CASES", "50000"))
FAST_CASES = 4000
WHOLE_WAY_CASES = int(os.environ.get("FUZZ_WHOLE_WAY_CASES", "500"))
SECONDS_MAX = 2.0
MESSAGE_CHARS_MAX = 4000

TEXT = ["openai", "openai-more", "vllm", "vllm-more", "vllm-counted", "tensorrtllm",
        "tensorrtllm-more", "llmapi-counted"]  # fmt: skip
EMBED = ["openai", "openai-more", "embedding", "embedding-more", "embedding-counted"]
ENGINES = ["vllm", "vllm-more", "tensorrtllm", "tensorrtllm-more", "llmapi-counted"]
TENSOR = ["tensor", "tensor-more", "tensor-listed"]

CHAT = {
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "x"}], "name": "bob"},
    ],
    "max_tokens": 5, "temperature": 0.5, "n": 2, "stop": ["a"], "seed": 1, "user": "me",
    "metadata": {"a": "b"}, "stream": True, "stream_options": {"include_usage": True},
}  # fmt: skip
COMPLETION = {"prompt": ["a", "b"], "max_tokens": 5, "n": 2, "stop": "a", "seed": 1, "top_p": 0.5}
EMBEDDING = {"input": ["a", "b"], "encoding_format": "float", "user": "me"}
NUMBERS = {"name": "INPUT0", "shape": [4], "datatype": "FP32", "data": [1, 2.5, -3, 4]}
TENSORS = {
    "id": "7",
    "parameters": {"binary_data_output": True},
    "inputs": [
        {"name": "INPUT0", "shape": [1, 4], "datatype": "FP32", "data": [1, 2.5, -3, 4]},
        {
            "name": "INPUT0",
            "shape": [2],
            "datatype": "BYTES",
            "parameters": {"binary_data_size": 8},
        },
    ],
    "outputs": [{"name": "OUTPUT0", "parameters": {"binary_data": True, "classification": 2}}],
}
GENERATES = {
    "vllm": {
        "text_input": "a", "sampling_parameters": '{"max_tokens": 5, "n": 2, "top_k": 1}',
        "exclude_input_in_output": True, "return_num_output_tokens": True, "stream": False,
    },
    "tensorrtllm": {
        "text_input": "a", "max_tokens": 5, "beam_width": 2, "stop_words": ["a"], "top_k": 1,
        "return_num_input_tokens": True,
    },
    "llmapi": {
        "text_input": ["a"], "sampling_param_max_tokens": 5, "sampling_param_n": 2,
        "streaming": False, "sampling_param_exclude_input_from_output": True,
    },
    "tensor": {"INPUT0": [1, 2], "id": "7"},
}  # fmt: skip
OPENAI = {
    "chat": (openai_chat.parse, TEXT, CHAT),
    "completions": (openai_completions.parse, TEXT, COMPLETION),
    "embeddings": (openai_embeddings.parse, EMBED, EMBEDDING),
}
LENGTHS = [b"0", b"1", b"-1", b"", b"x", b"007", b"99999999999999999999", b" 5", b"5,5", b"\xb2",
           "٣".encode(), b"1e2", b"0x5"]  # fmt: skip


def openai_work(rng: random.Random, kind: str):
    parse, models, document = OPENAI[kind]
    body = mutate_document(rng, {"model": rng.choice(models)} | document, rng.randrange(4))
    return lambda: parse(body), body


def infer_work(rng: random.Random):
    model = rng.choice(TENSOR)
    body, length = mutate_document(rng, TENSORS, rng.randrange(4)), None
    if rng.random() < 0.6:
        length = b"%d" % max(0, len(body) + rng.choice((0, 0, 0, 0, 1, -1, 8, -8)))
        if rng.random() < 0.2:
            length = rng.choice(LENGTHS)
        body += rng.randbytes(rng.choice((0, 8, 8, 64)))
    version = rng.choice(("", "", "1", "999999999"))
    return lambda: kserve_infer.parse(model, version, body, length), (length, body)


def generate_work(rng: random.Random):
    model = rng.choice(ENGINES + TENSOR)
    body = mutate_document(rng, GENERATES[model.partition("-")[0]], rng.randrange(4))
    stream, version = rng.random() < 0.5, rng.choice(("", "1"))
    return lambda: kserve_generate.parse(model, version, body, stream=stream), body


KINDS = {
    "chat": lambda rng: openai_work(rng, "chat"),
    "completions": lambda rng: openai_work(rng, "completions"),
    "embeddings": lambda rng: openai_work(rng, "embeddings"),
    "infer": infer_work,
    "generate": generate_work,
}


async def run(seed: int, first: int, cases: int) -> Counter[str]:
    shop, ends = Shop(), Counter[str]()
    for number in range(first, first + cases):
        rng = random.Random(f"{seed}/{number}")  # each case can be replayed alone
        kind = list(KINDS)[number % len(KINDS)]
        parse, body = KINDS[kind](rng)
        try:
            ends[f"{kind} {await end_of(shop, parse)}"] += 1
        except BaseException:
            print(f"FUZZ_SEED={seed} case {number}: {kind} {body!r:.2000}")
            raise
    return ends


async def end_of(shop: Shop, parse) -> str:
    """`refused` or `reached`; anything else raises."""
    began = time.monotonic()
    try:
        work = parse()
        made, requests = await shop.reach(work)
    except CallerError as failure:
        refused = failure
    else:
        refused = None
    assert time.monotonic() - began < SECONDS_MAX
    if refused is not None:
        assert 400 <= refused.status < 500, refused
        assert len(str(refused)) < MESSAGE_CHARS_MAX
        return "refused"
    assert requests
    for request in requests:
        assert violations(made, request) == []
    return "reached"


def fair(ends: Counter[str]) -> None:
    """Both ends are met on every surface, or the cases prove little."""
    for kind in KINDS:
        for end in ("refused", "reached"):
            assert ends[f"{kind} {end}"] > sum(ends.values()) // 100, ends


async def test_random_bodies_are_read_or_refused_and_nothing_unlisted_reaches_a_server():
    print(f"FUZZ_SEED={SEED}")
    fair(await run(SEED, 0, FAST_CASES))


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_fifty_thousand_random_bodies_are_read_or_refused():
    began = time.monotonic()
    ends = await run(SEED, 0, CASES)
    fair(ends)
    print(f"FUZZ_SEED={SEED}: {dict(ends)} in {time.monotonic() - began:.0f} s")


FOUND = {
    "a count beyond floats": b'{"text_input":"a","beam_width":1e400}',
    "a count of nothing": b'{"text_input":"a","beam_width":[null]}',
    "bytes that are no text": b'{"text_input":"a","id":"\xc1"}',
}


@pytest.mark.parametrize("name", FOUND)
async def test_what_was_found_once_is_refused(name):
    """An unreadable count was taken for none, reserved as one, and forwarded as it came."""
    body = FOUND[name]

    def parse():
        return kserve_generate.parse("tensorrtllm", "", body, stream=False)

    assert await end_of(Shop(), parse) == "refused"


@pytest.mark.parametrize(("field", "end"), [("tools", "reached"), ("binary_data", "refused")])
async def test_of_an_embedding_models_parameters_only_listed_ones_reach_it(field, end):
    """Seed 20261125, case 19002: the list of this test did not know them."""
    body = b'{"model": "embedding-more", "input": ["a", "b"], "%b": -0.5}' % field.encode()
    assert await end_of(Shop(), lambda: openai_embeddings.parse(body)) == end


@pytest.mark.parametrize("value", ["1e400", "[" * 2000 + "]" * 2000])
@pytest.mark.parametrize("model", ["vllm-more", "openai-more"])
async def test_a_listed_field_that_nobody_can_read_is_refused_before_it_is_admitted(model, value):
    body = f'{{"model":"{model}","messages":[{{"role":"user","content":"a"}}],"top_k":{value}}}'
    assert await end_of(Shop(), lambda: openai_chat.parse(body.encode())) == "refused"


@pytest.mark.parametrize(
    "shapes", [[[4, 2**31 - 1]], [[2**31 - 1] * 100_000], [[100], [100]], [[151]]], ids=len
)
async def test_a_shape_that_claims_more_than_was_sent_reaches_no_server(shapes):
    """Triton made room for 34 GB, and was gone."""
    inputs = [NUMBERS | {"shape": shape} for shape in shapes]
    body = json.dumps({"inputs": inputs}).encode()
    assert await end_of(Shop(), lambda: kserve_infer.parse("tensor", "", body, None)) == "refused"


@pytest.mark.parametrize("shape", [[4], [2, 2], [1, 1, 4], [], [0], [2**31 - 1, 0], [100]])
async def test_what_could_have_been_sent_is_the_servers_to_judge(shape):
    body = json.dumps({"inputs": [NUMBERS | {"shape": shape}]}).encode() + b" " * 20
    assert await end_of(Shop(), lambda: kserve_infer.parse("tensor", "", body, None)) == "reached"


async def test_bytes_that_are_no_text_reach_no_server_on_any_surface():
    tensors = b'{"inputs":[{"name":"INPUT0","shape":[1],"datatype":"BYTES","data":["\xff"]}]}'
    tools = (
        b'{"model":"openai-more","messages":[{"role":"user","content":"a"}],"tools":[{"a":"\xff"}]}'
    )
    for parse in (
        lambda: kserve_infer.parse("tensor", "", tensors, None),
        lambda: kserve_infer.parse("tensor", "", tensors + b"\xff", b"%d" % len(tensors)),
        lambda: openai_chat.parse(tools),
    ):
        assert await end_of(Shop(), parse) == "refused"


SAMPLES = {
    "chat": ("/v1/chat/completions", CHAT | {"model": "tiny-lm"}),
    "completions": ("/v1/completions", COMPLETION | {"model": "tiny-lm"}),
    "embeddings": ("/v1/embeddings", EMBEDDING | {"model": "all-minilm-l6-v2"}),
    "infer": ("/v2/models/identity/infer", {"inputs": [NUMBERS]}),
    "generate": (
        "/v2/models/tiny-lm/generate_stream",
        {"text_input": "a", "sampling_parameters": '{"max_tokens": 5}'},
    ),
}


@pytest.mark.django_db(transaction=True)
def test_random_bodies_to_the_real_gateway_and_models_are_nobodys_failure(
    gateway, selling, onboard
):
    """From the socket to Triton and back: neither gateway nor model answers with a failure."""
    tenant, ends = let_in(onboard), Counter[str]()
    print(f"FUZZ_SEED={SEED}")
    with gateway.client(tenant.secret) as client:
        for number in range(WHOLE_WAY_CASES):
            rng = random.Random(f"{SEED}/whole/{number}")
            kind = list(SAMPLES)[number % len(SAMPLES)]
            path, document = SAMPLES[kind]
            body = mutate_document(rng, document, rng.randrange(3))
            answer = client.post(path, content=body)
            assert answer.status_code < 500, (number, kind, body[:1000], answer.text[:500])
            ends[f"{kind} {'refused' if answer.status_code >= 400 else 'reached'}"] += 1
    fair(ends)
    wait_until(gateway.at_rest, "every request settled")
    assert len(gateway.settles()) >= sum(ends[f"{kind} reached"] for kind in SAMPLES)
