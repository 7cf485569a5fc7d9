"""Models with servers of their own: reached, left for others, timed out, and billed once."""

import random
import re
import subprocess
import sys
import time
from pathlib import Path

import grpc
import httpx2 as httpx
import numpy as np
import pytest

from tests.conftest import ROOT, wait_until
from tests.gateway.deployments import let_in, model, new_name, put_on_sale
from tests.gateway_grpc.tensors import SERVICE, floats, infer_stub, message, stream_stub, text
from tests.gateway_grpc.upstream import response, serving, until_given_up

pytestmark = pytest.mark.django_db(transaction=True)
NOWHERE = "127.0.0.1:9"
HTTP = "http://127.0.0.1:9"


@pytest.fixture
def sell(transactional_db, redis_url, onboard, tmp_path):
    """Put models on sale; the metadata of a tenant who may use them."""

    def make(*models):
        put_on_sale(tmp_path, *models)
        return [("authorization", f"Bearer {let_in(onboard).secret}")]

    return make


def to(name, *addresses, **fields):
    """A target that is reached over gRPC."""
    return {"name": name, "grpc_servers": list(addresses), "servers": [HTTP]} | fields


def echo(upstream, asked, context):
    answer = response(None).infer_response
    answer.model_name, answer.id = asked.model_name, asked.id
    return answer


def ask(gateway, name, metadata):
    with grpc.insecure_channel(gateway.url) as channel:
        return infer_stub(channel)(message(name, floats(1)), metadata=metadata)


def test_a_model_is_asked_on_its_own_servers_under_its_own_name(start_gateway, sell):
    with serving(echo) as upstream:
        name = new_name()
        metadata = sell(
            model(
                name, "tensor", targets=[to("a", upstream.address, upstream="inner", version="3")]
            )
        )
        gateway = start_gateway(TRITON_GRPC_URLS=NOWHERE)
        answer = ask(gateway, name, metadata)
    assert answer.model_name == name
    (asked,) = upstream.messages
    assert (asked.model_name, asked.model_version) == ("inner", "3")
    assert gateway.settles()[0].server == upstream.address


def test_a_model_whose_grpc_is_not_known_is_not_served_and_nothing_admitted(gateway, sell):
    name = new_name()
    metadata = sell(
        model(name, "tensor", targets=[{"name": "a", "servers": [HTTP], "upstream": name}])
    )
    with pytest.raises(grpc.RpcError) as failure:
        ask(gateway, name, metadata)
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "gRPC addresses" in failure.value.details()
    assert gateway.frames() == []


def test_a_target_that_is_not_there_is_left_for_the_next_and_billed_once(start_gateway, sell):
    with serving(echo) as upstream:
        name = new_name()
        targets = [
            to("gone", NOWHERE, upstream=name, weight=1_000),
            to("here", upstream.address, upstream=name, weight=1, region="eu", gpu_type="L4"),
        ]
        metadata = sell(model(name, "tensor", targets=targets))
        gateway = start_gateway()
        for _ in range(5):
            ask(gateway, name, metadata)
    settles = gateway.settles()
    assert [(each.status, each.deployment, each.requests) for each in settles] == [
        ("ok", "here", 1)
    ] * 5
    assert {(each.priority, each.region, each.gpu_type) for each in settles} == {
        ("normal", "eu", "L4")
    }
    assert max(each.retries for each in settles) >= 1  # the draw may begin with the other


def test_a_fallback_serves_and_is_told_apart(start_gateway, sell):
    with serving(echo) as upstream:
        first, second = new_name(), new_name()
        metadata = sell(
            model(second, "tensor", targets=[to("b", upstream.address, upstream="inner")]),
            model(first, "tensor", targets=[to("a", NOWHERE, upstream="x")], fallbacks=[second]),
        )
        gateway = start_gateway()
        assert ask(gateway, first, metadata).model_name == second
    (settle,) = gateway.settles()
    assert (settle.model, settle.requested_model) == (second, first)


def test_a_server_lost_after_it_was_asked_is_not_asked_twice(start_gateway, sell):
    def die(upstream, asked, context):
        upstream.server.stop(0)
        until_given_up(context)

    with serving(die) as dying, serving(echo) as other:
        first, second = new_name(), new_name()
        metadata = sell(
            model(second, "tensor", targets=[to("b", other.address, upstream="x")]),
            model(
                first, "tensor", targets=[to("a", dying.address, upstream="x")], fallbacks=[second]
            ),
        )
        gateway = start_gateway()
        with pytest.raises(grpc.RpcError) as failure:
            ask(gateway, first, metadata)
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
        assert other.asked == 0
    (settle,) = gateway.settles()
    assert (settle.status, settle.cost_nano) == ("error", 0)


def test_a_busy_server_says_so_and_another_is_asked(start_gateway, sell):
    drawn = []

    def busy_if_first(upstream, asked, context):
        drawn.append(upstream)
        if len(drawn) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
        return echo(upstream, asked, context)

    with serving(busy_if_first) as one, serving(busy_if_first) as other:
        name = new_name()
        targets = [
            to("one", one.address, upstream=name),
            to("other", other.address, upstream=name),
        ]
        metadata = sell(model(name, "tensor", targets=targets))
        gateway = start_gateway()
        ask(gateway, name, metadata)
    assert (one.asked, other.asked) == (1, 1)
    free = "one" if drawn[1] is one else "other"
    assert [each.deployment for each in gateway.settles()] == [free]


def test_the_upstreams_secret_is_sent_and_the_callers_key_is_not(start_gateway, sell):
    found = {}

    def note(upstream, asked, context):
        found.update(dict(context.invocation_metadata()))
        return echo(upstream, asked, context)

    with serving(note) as upstream:
        name = new_name()
        metadata = sell(
            model(
                name,
                "tensor",
                targets=[to("a", upstream.address, upstream="x")],
                secret_env="UPSTREAM_SECRET_A",
            )
        )
        gateway = start_gateway(UPSTREAM_SECRET_A="hush")
        ask(gateway, name, metadata)
    assert found["authorization"] == "Bearer hush"


def test_servers_that_are_silent_time_out_by_the_models_own_bounds(start_gateway, sell):
    def silent(upstream, asked, context):
        until_given_up(context)

    def stuck(upstream, asked, context):
        yield response(False, b"x", id=asked.id)
        until_given_up(context)

    def endless(upstream, asked, context):
        while context.is_active():
            yield response(False, b"x", id=asked.id)
            time.sleep(0.02)

    with serving(silent, stuck) as upstream, serving(None, endless) as other:
        quiet, long = new_name(), new_name()
        metadata = sell(
            model(
                quiet,
                "tensor",
                targets=[to("a", upstream.address, upstream="x")],
                first_byte_timeout_s=1,
                idle_timeout_s=1,
            ),
            model(long, "tensor", targets=[to("a", other.address, upstream="x")], duration_s_max=1),
        )
        gateway = start_gateway()
        with pytest.raises(grpc.RpcError) as failure:
            ask(gateway, quiet, metadata)
        assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        with grpc.insecure_channel(gateway.url) as channel:
            asked = iter([message(quiet, floats(1), id="1")])
            first, last = stream_stub(channel)(asked, metadata=metadata)
            assert not first.error_message
            assert "in time" in last.error_message
            *answers, last = stream_stub(channel)(
                iter([message(long, floats(1), id="1")]), metadata=metadata
            )
            assert len(answers) > 5
            assert "in time" in last.error_message
        wait_until(lambda: upstream.cancelled == 2 and other.cancelled == 1, "cancelling", 10)
    assert [(each.status, each.http_status) for each in gateway.settles()] == [
        ("error", 504),
        ("error", 504),
        ("interrupted", 504),
    ]


def test_a_disk_that_fails_ends_admission_and_no_end_of_an_answer_leaves(
    start_gateway, triton, acme
):
    gateway = start_gateway()
    metadata = [("authorization", f"Bearer {acme.secret}")]
    with grpc.insecure_channel(gateway.url) as channel:
        infer_stub(channel)(message("identity", floats(1)), metadata=metadata)
        limit = [sys.executable, "-c", "import resource, sys; resource.prlimit(int(sys.argv[1]),"
                 " resource.RLIMIT_FSIZE, (8192, 8192))", str(gateway.process.pid)]  # fmt: skip
        subprocess.run(limit, check=True)
        asked = [message("identity", floats(n), id=str(n)) for n in range(60)]
        answers: list = []
        # What cannot be written down waits for the disk, for as long as its caller does.
        with pytest.raises(grpc.RpcError) as given_up:
            answers.extend(stream_stub(channel)(iter(asked), metadata=metadata, timeout=5))
        assert given_up.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        served = 1 + sum(not each.error_message for each in answers)
        assert served < 60
        with pytest.raises(grpc.RpcError) as failure:
            infer_stub(channel)(message("identity", floats(1)), metadata=metadata)
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    assert len(gateway.settles()) >= served


def generated(triton):
    """Tokens that the text model has made, whoever took them."""
    found = re.search(
        r"^vllm:generation_tokens_total\{.*\} (\S+)$", httpx.get(triton.metrics_url).text, re.M
    )
    return int(float(found[1])) if found else 0


def test_callers_that_leave_anywhere_are_one_event_each_and_billed_between(
    channel, gateway, triton, acme
):
    """delivered <= billed <= generated, over streams cut at random responses."""
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    metadata = [("authorization", f"Bearer {acme.secret}")]
    before, delivered = generated(triton), 0
    for _ in range(60):
        asked = [message("tiny-lm", text("x", 60)) for _ in range(chance.randint(1, 4))]
        call = stream_stub(channel)(iter(asked), metadata=metadata)
        for _ in range(chance.randint(0, 25)):
            delivered += bool(next(call).infer_response.outputs)
        time.sleep(chance.random() / 100)
        call.cancel()
    wait_until(gateway.at_rest, "every message being settled")
    settles = gateway.settles()
    assert len({each.request_id for each in settles}) == len(settles) == len(gateway.admits())
    billed = sum(each.tokens_out for each in settles)
    wait_until(lambda: generated(triton) - before >= billed, "the model's own count")
    assert delivered <= billed <= generated(triton) - before, f"seed {seed}"


def test_a_message_whose_time_is_up_while_a_response_is_written_is_told_so(start_gateway, sell):
    """The caller reads nothing until then: a write is under way, and another comes after it."""

    def endless(upstream, asked, context):
        while context.is_active():
            yield response(False, bytes(2**20), id=asked.id)

    with serving(None, endless) as upstream:
        name = new_name()
        arms = [to("a", upstream.address, upstream="x")]
        metadata = sell(model(name, "tensor", targets=arms, duration_s_max=1))
        gateway = start_gateway()
        with grpc.insecure_channel(gateway.url) as channel:
            call = stream_stub(channel)(iter([message(name, floats(1), id="1")]), metadata=metadata)
            wait_until(lambda: len(gateway.settles()) == 1, "its time being up")
            *answers, last = call
            assert "in time" in last.error_message
            assert last.infer_response.id == "1"
            assert not any(each.error_message for each in answers)
    (settle,) = gateway.settles()
    assert (settle.status, settle.http_status) == ("interrupted", 504)


def test_the_example_of_the_readme_works(gateway, acme):
    blocks = re.findall(r"```python\n(.*?)```", Path(ROOT / "README.md").read_text(), re.DOTALL)
    (example,) = [each for each in blocks if "tritonclient.grpc" in each]
    ran = subprocess.run(
        [sys.executable, "-c", example],
        env={"GRPC": gateway.url, "KEY": acme.secret, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stdout.startswith(str(np.arange(4, dtype=np.float32)))
    assert len(ran.stdout.splitlines()) > 3
    assert [each.status for each in gateway.settles()] == ["ok", "ok"]


def test_only_bytes_that_are_a_call_reach_a_handler(gateway, acme):
    """Random bytes as messages, on every method: a status each time, and never INTERNAL."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    metadata = [("authorization", f"Bearer {acme.secret}")]
    valid = message("identity", floats(1, 2, 3), id="7").SerializeToString()
    others = []
    with grpc.insecure_channel(gateway.url) as channel:
        for _ in range(400):
            content = bytearray(valid)
            for _ in range(chance.randint(1, 6)):
                content[chance.randrange(len(content))] = chance.randrange(256)
            del content[chance.randint(0, len(content)) :]
            method = chance.choice(["ModelInfer", "ModelMetadata", "ModelReady"])
            try:
                channel.unary_unary(f"{SERVICE}/{method}")(bytes(content), metadata=metadata)
            except grpc.RpcError as failure:
                if failure.code() not in ALLOWED:
                    others.append((bytes(content), failure.code(), failure.details()))
    assert not others, f"seed {seed}"
    assert gateway.process.poll() is None
    wait_until(gateway.at_rest, "everything settling")


ALLOWED = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
