"""A real Triton is told each request's priority and what is left of its time, and obeys.

Its model serves one request at a time and has three levels. Nothing waits in the gateway: the model
has no bound there.
"""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx2 as httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from django.db import connections

from tenants.limits import set_priority
from tests.conftest import wait_until
from tests.gateway.conftest import end
from tests.gateway.deployments import let_in, model, new_name, put_on_sale
from tests.gateway_grpc.conftest import launch as launch_grpc
from tests.gateway_grpc.tensors import infer_stub, message

pytestmark = pytest.mark.django_db(transaction=True)
PENDING = re.compile(r'nv_inference_pending_request_count{[^}]*model="ranked"[^}]*} (\d+)')


@pytest.fixture(scope="module")
def grpc_gateway(django_db_setup, kinds_triton, tmp_path_factory):
    gateway = launch_grpc(tmp_path_factory.mktemp("priorities") / "gateway", kinds_triton)
    yield gateway
    end(gateway)


@pytest.fixture
def ranked(kinds_gateway, kinds_triton, grpc_gateway, onboard, tmp_path):
    """Three tenants of different priority, and a gate that the model waits at."""
    name = new_name("ranked")
    put_on_sale(tmp_path, model(name, "tensor", upstream="ranked", priority_levels=3))
    secrets = {}
    for slug in ("high", "normal", "low"):
        tenant = let_in(onboard, slug)
        set_priority(tenant_id=tenant.id, priority=slug, weight=1)
        secrets[slug] = tenant.secret
    connections.close_all()
    made = Ranked(name, secrets, kinds_triton.metrics_url, tmp_path / "gate")
    yield made
    made.gate.touch()
    made.close()


class Ranked:
    def __init__(self, name, secrets, metrics_url, gate):
        self.name = name
        self.gate = gate
        self._secrets = secrets
        self._metrics_url = metrics_url
        self._threads = ThreadPoolExecutor(16)

    def close(self):
        self._threads.shutdown()

    def begin(self, ask, slug, **headers):
        return self._threads.submit(ask, self, slug, "", headers)

    def begin_at_the_gate(self, ask, slug):
        """Returns once Triton works on it: whoever is begun then waits."""
        begun = self._threads.submit(ask, self, slug, str(self.gate), {})
        wait_until(self.gate.with_suffix(".reached").exists, "a request at the gate")
        return begun

    def until_pending(self, count):
        def there():
            found = PENDING.search(httpx.get(self._metrics_url).text)
            return found is not None and int(found[1]) == count

        wait_until(there, f"{count} requests waiting in Triton")

    def secret(self, slug):
        return f"Bearer {self._secrets[slug]}"


def over_http(gateway):
    def ask(ranked, slug, gate, headers):
        shape = {"name": "GATE", "shape": [1, 1], "datatype": "BYTES"}
        answer = httpx.post(
            f"{gateway.url}/v2/models/{ranked.name}/infer",
            json={"inputs": [shape | {"data": [gate]}]},
            headers={"authorization": ranked.secret(slug)} | headers,
            timeout=60,
        )
        if answer.status_code != 200:
            return answer.status_code, answer.json()["error"]
        return 200, answer.json()["outputs"][0]["data"][0]

    return ask


def over_grpc(gateway):
    def ask(ranked, slug, gate, headers):
        tensor = triton_grpc.InferInput("GATE", [1, 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[gate.encode()]], object))
        timeout_s = int(headers["x-request-timeout-ms"]) / 1000 if headers else 60
        with grpc.insecure_channel(gateway.url) as channel:
            try:
                answer = infer_stub(channel)(
                    message(ranked.name, [tensor]),
                    metadata=[("authorization", ranked.secret(slug))],
                    timeout=timeout_s,
                )
            except grpc.RpcError as failure:
                return failure.code(), failure.details()
        return 200, int(np.frombuffer(answer.raw_output_contents[0], np.int32)[0])

    return ask


@pytest.fixture(params=["http", "grpc"])
def ask(request, kinds_gateway, grpc_gateway):
    if request.param == "http":
        return over_http(kinds_gateway)
    return over_grpc(grpc_gateway)


def test_triton_serves_the_higher_priority_first(ranked, ask):
    first = ranked.begin_at_the_gate(ask, "low")
    asking = [first]
    for slug in ("low", "low", "normal", "normal", "high", "high"):
        asking.append(ranked.begin(ask, slug))
        # The one it works on is not pending; the model's next may be taken up already.
        ranked.until_pending(len(asking) - 1)
    ranked.gate.touch()
    answers = [each.result() for each in asking]
    assert {status for status, _ in answers} == {200}
    _, *served = [number - answers[0][1] for _, number in answers]
    print("served as", served)
    low, normal, high = served[:2], served[2:4], served[4:]
    assert max(high) < min(normal)
    assert max(normal) < min(low)


def test_triton_does_not_work_for_somebody_whose_time_was_up_in_its_queue(ranked, kinds_gateway):
    ask = over_http(kinds_gateway)
    first = ranked.begin_at_the_gate(ask, "normal")
    late = ranked.begin(ask, "normal", **{"x-request-timeout-ms": "300"})
    ranked.until_pending(1)
    time.sleep(0.4)
    ranked.gate.touch()
    assert late.result()[0] == 503
    _, served = first.result()
    assert ask(ranked, "normal", "", {}) == (200, served + 1)


def test_over_grpc_the_calls_deadline_is_told(ranked, grpc_gateway):
    """It is a parameter that Triton takes: the call ends by its time, and not by a refusal."""
    ask = over_grpc(grpc_gateway)
    first = ranked.begin_at_the_gate(ask, "normal")
    code, said = ask(ranked, "normal", "", {"x-request-timeout-ms": "500"})
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED, said
    ranked.gate.touch()
    assert first.result()[0] == 200
