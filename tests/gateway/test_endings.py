"""However a request ends, it leaves exactly one usage event."""

import json
import random
import signal
import threading

import pytest

from tests.conftest import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

STREAM = {
    "model": "tiny-lm",
    "messages": [{"role": "user", "content": "Tell me about budgets"}],
    "max_tokens": 1000,
    "seed": 1,
    "stream": True,
}


def read_tokens(answer, count):
    """Read `count` pieces of text from a stream, then leave."""
    texts = []
    for line in answer.iter_lines():
        if line.startswith("data: {"):
            delta = json.loads(line[6:])["choices"][0]["delta"]
            if delta.get("content"):
                texts.append(delta["content"])
        if len(texts) == count:
            return texts
    return texts


def test_a_caller_who_leaves_is_billed_for_what_was_generated_until_then(gateway, acme):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(5):
        before = len(gateway.settles())
        wanted = chance.randrange(1, 12)
        with (
            gateway.client(acme.secret) as client,
            client.stream("POST", "/v1/chat/completions", json=STREAM) as answer,
        ):
            delivered = len(read_tokens(answer, wanted))

        def settled_once(seen=before):
            return len(gateway.settles()) == seen + 1

        wait_until(settled_once, "one settle")
        settled = gateway.settles()[-1]
        if settled.status == "ok":
            continue  # a short answer that was over before we left
        assert settled.status == "cancelled"
        assert delivered <= settled.tokens_out < 1000
        assert settled.cost_nano == settled.tokens_in * 150 + settled.tokens_out * 600
    assert len(gateway.admits()) == len(gateway.settles()) == 5


def test_a_terminated_gateway_finishes_what_it_began(start_gateway, triton, acme):
    gateway = start_gateway(triton.http_url)
    texts: list[str] = []
    ended: list[bool] = []

    def read_it_all():
        with (
            gateway.client(acme.secret) as client,
            client.stream("POST", "/v1/chat/completions", json=STREAM) as answer,
        ):
            for line in answer.iter_lines():
                texts.append(line)
            ended.append(line != "")

    reader = threading.Thread(target=read_it_all)
    reader.start()
    wait_until(lambda: len(texts) > 3, "a stream that has begun")
    gateway.process.send_signal(signal.SIGTERM)
    reader.join(30)
    assert gateway.process.wait(30) in (0, -signal.SIGTERM)
    assert "data: [DONE]" in texts
    (settled,) = gateway.settles()
    assert settled.status == "ok"


def test_a_killed_gateway_has_every_answered_request_in_its_journal(start_gateway, triton, acme):
    gateway = start_gateway(triton.http_url)
    tensor = {"name": "INPUT0", "shape": [1], "datatype": "FP32", "data": [1]}
    answered = []
    with gateway.client(acme.secret) as client:
        for _ in range(200):
            answer = client.post("/v2/models/identity/infer", json={"inputs": [tensor]})
            assert answer.status_code == 200
            answered.append(answer.headers["x-request-id"])
        gateway.process.kill()
        gateway.process.wait()
    assert [str(settled.request_id) for settled in gateway.settles()] == answered
