"""What Triton's scheduler is told of a request, over HTTP and gRPC, where a model has levels.

The real Triton takes it; it tells nobody which level a request had, so what is sent is looked at.
"""

import math
import time
from types import SimpleNamespace

import grpc
import msgspec
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from django.db import connections

from meterplane.contracts.serving import ModelServing, Target
from meterplane.gateway.kserve_grpc import infer_work
from meterplane.gateway.kserve_grpc.messages import ModelInferRequest
from meterplane.gateway.surfaces import kserve_infer
from meterplane.gateway.triton_priority import scheduling_of
from tenants.limits import set_priority
from tests.gateway.conftest import end
from tests.gateway.deployments import let_in, model, new_name, put_on_sale
from tests.gateway_grpc import conftest as over_grpc
from tests.gateway_grpc.tensors import infer_stub, message

# Levels of the model, the organisation's priority, and what is told of it.
CASES = [
    (2, "high", 1),
    (2, "normal", 2),
    (2, "low", 2),
    (3, "low", 3),
    (1, "normal", 1),
    (0, "high", None),
]
ONE = {"inputs": [{"name": "INPUT0", "shape": [1, 1], "datatype": "FP32", "data": [1.5]}]}


@pytest.fixture
def sold(transactional_db, redis_url, onboard, tmp_path):
    """`sold(levels, priority)`: a name the model is sold under, and the key of who may use it."""
    names = {levels: new_name() for levels, _, _ in CASES}
    put_on_sale(
        tmp_path,
        *(
            model(name, "tensor", upstream="levels", priority_levels=levels)
            for levels, name in names.items()
        ),
    )
    tenant = let_in(onboard)

    def make(levels, priority):
        set_priority(tenant_id=tenant.id, priority=priority, weight=1)
        connections.close_all()
        return names[levels], tenant.secret

    return make


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("levels", "priority", "level"), CASES)
@pytest.mark.parametrize("headers", [{}, {"x-request-timeout-ms": "60000"}])
def test_triton_takes_it_over_http(kinds_gateway, sold, levels, priority, level, headers):
    name, secret = sold(levels, priority)
    with kinds_gateway.client(secret) as client:
        answer = client.post(f"/v2/models/{name}/infer", json=ONE, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"] == [1.5]


@pytest.mark.django_db(transaction=True)
def test_triton_takes_it_over_grpc(kinds_triton, sold, tmp_path):
    gateway = over_grpc.launch(tmp_path / "grpc", kinds_triton)
    try:
        for levels, priority, _ in CASES:
            name, secret = sold(levels, priority)
            tensor = triton_grpc.InferInput("INPUT0", [1, 1], "FP32")
            tensor.set_data_from_numpy(np.array([[1.5]], np.float32))
            asked = message(name, [tensor])
            with grpc.insecure_channel(gateway.url) as channel:
                stub = infer_stub(channel)
                metadata = [("authorization", f"Bearer {secret}")]
                for deadline_s in (None, 60):
                    answer = stub(asked, metadata=metadata, timeout=deadline_s)
                    assert answer.model_name == name
    finally:
        end(gateway)


@pytest.mark.django_db(transaction=True)
def test_a_caller_cannot_choose(kinds_gateway, sold):
    name, secret = sold(2, "low")
    body = ONE | {"parameters": {"priority": 1}}
    with kinds_gateway.client(secret) as client:
        answer = client.post(f"/v2/models/{name}/infer", json=body)
    assert answer.status_code == 400
    assert kinds_gateway.frames() == []


def run_of(levels, priority, *, tier="standard", within_s=math.inf):
    serving = ModelServing(
        name="m", version=1, targets=[Target(upstream="m")], priority_levels=levels
    )
    return SimpleNamespace(
        offer=SimpleNamespace(serving=serving),
        model=SimpleNamespace(adapter="tensor"),
        plan=SimpleNamespace(tier=tier),
        admission=SimpleNamespace(policy=SimpleNamespace(priority=priority)),
        wanted_by=time.monotonic() + within_s,
        target=Target(upstream="m"),
    )


@pytest.mark.parametrize(("levels", "priority", "level"), CASES)
def test_a_priority_is_one_of_the_models_levels(levels, priority, level):
    assert scheduling_of(run_of(levels, priority)).get("priority") == level


def test_a_line_of_a_batch_is_low_and_a_deadline_is_told_in_microseconds():
    assert scheduling_of(run_of(3, "high", tier="batch")) == {"priority": 3}
    told = scheduling_of(run_of(3, "high", within_s=60))
    assert told["priority"] == 1
    assert 0 < told["timeout"] <= 60_000_000
    assert scheduling_of(run_of(3, "high", within_s=-1))["timeout"] == 1  # 0 would be for ever


def test_it_is_sent_with_what_the_caller_said():
    said = {"inputs": ONE["inputs"], "parameters": {"binary_data_output": True}}
    run = run_of(2, "high")
    work = kserve_infer.parse("m", "", msgspec.json.encode(said), None)
    body, _ = work.upstream(run.offer, scheduling_of(run))
    sent = msgspec.json.decode(body)
    assert sent.pop("parameters") == {"binary_data_output": True, "priority": 1}
    assert sent == {"inputs": ONE["inputs"]}
    asked = infer_work.parse(message("m", []).SerializeToString(), "grpc.infer")
    content, _ = asked.written_for(run)
    sent_over_grpc = ModelInferRequest.FromString(content)
    assert sent_over_grpc.parameters["priority"].uint64_param == 1
