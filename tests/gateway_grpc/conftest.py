"""A real gRPC gateway process in front of the real Triton, PostgreSQL and Redis."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
import tritonclient.grpc as triton_grpc

from tests import environment
from tests.conftest import OnboardedOrganisation, TritonServer, free_port, superuser, wait_until
from tests.gateway.conftest import CATALOG, GatewayProcess, as_if_new, end
from tests.gateway.deployments import let_in, model, put_on_sale
from tests.gateway_grpc.upstream import Upstream, serving, until_given_up

PROGRAM = ("-m", "meterplane.gateway.kserve_grpc")


def launch(
    folder: Path, triton: TritonServer, program: Sequence[str] = PROGRAM, **overrides: str
) -> GatewayProcess:
    """Start a gRPC gateway process; returns when it answers. Its `url` is `host:port`."""
    folder.mkdir(parents=True)
    port, journal, log = free_port(), folder / "journal", folder / "gateway.log"
    variables = os.environ | {
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_GRPC_PORT": str(port),
        "GATEWAY_WORKER": "test-grpc",
        "JOURNAL_DIR": str(journal),
        "TRITON_URLS": triton.http_url,
        "TRITON_GRPC_URLS": triton.grpc_url,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *program],
            env=variables | overrides,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    gateway = GatewayProcess(f"127.0.0.1:{port}", journal, process, log)

    def answers() -> bool:
        if process.poll() is not None:
            pytest.fail(f"the gateway ended: {log.read_text()[-2000:]}")
        return b"serving gRPC" in log.read_bytes()

    wait_until(answers, "the gateway answering")
    return gateway


@pytest.fixture
def start_gateway(
    transactional_db: None, redis_url: str, triton: TritonServer, tmp_path: Path
) -> Iterator[Callable[..., GatewayProcess]]:
    """Start gateways of this test's own: `start_gateway(TRITON_GRPC_URLS=...)`."""
    running: list[GatewayProcess] = []

    def start(**extra: Any) -> GatewayProcess:
        running.append(launch(tmp_path / f"gateway-{len(running)}", triton, **extra))
        return running[-1]

    yield start
    for gateway in running:
        end(gateway)
        check_log(gateway)


@pytest.fixture(scope="session")
def shared_gateway(django_db_setup: None, triton: TritonServer) -> Iterator[GatewayProcess]:
    """One gateway in front of the sample models, for all tests that leave it alive."""
    gateway = launch(environment.HOME / "shared-grpc-gateway", triton)
    yield gateway
    end(gateway)
    check_log(gateway)


def check_log(gateway: GatewayProcess) -> None:
    """Whatever was sent and whoever left: nothing surprised the process."""
    log = gateway.log.read_text()
    assert "Traceback" not in log, log[-4000:]
    assert "never retrieved" not in log, log[-4000:]


@pytest.fixture
def gateway(
    transactional_db: None, redis_url: str, shared_gateway: GatewayProcess
) -> GatewayProcess:
    """The shared gateway in front of the sample models."""
    return as_if_new(shared_gateway)


@pytest.fixture
def selling(transactional_db: None, redis_url: str, tmp_path: Path) -> None:
    """The sample models; the text model as plain tensors too; and one under another name."""
    if not superuser().restore("selling_tensors"):
        put_on_sale(
            tmp_path,
            *json.loads(CATALOG.read_text())["models"],
            model("raw-lm", "tensor", upstream="tiny-lm"),
            model("echo", "tensor", upstream="identity", inputs=["INPUT0"], outputs=["OUTPUT0"]),
            model("elsewhere", "openai"),
        )
        superuser().keep("selling_tensors")


@pytest.fixture
def acme(selling: None, onboard: Callable[..., OnboardedOrganisation]) -> OnboardedOrganisation:
    """A tenant whose key may use every model, as often as a test asks."""
    return let_in(onboard)


@pytest.fixture
def headers(acme: OnboardedOrganisation) -> dict[str, str]:
    """The metadata of acme's calls."""
    return {"authorization": f"Bearer {acme.secret}"}


@pytest.fixture
def client(gateway: GatewayProcess) -> Iterator[triton_grpc.InferenceServerClient]:
    """An unmodified tritonclient."""
    with triton_grpc.InferenceServerClient(gateway.url) as made:
        yield made


@pytest.fixture
def channel(gateway: GatewayProcess) -> Iterator[grpc.Channel]:
    """A plain channel to the gateway."""
    with grpc.insecure_channel(gateway.url) as made:
        yield made


@pytest.fixture
def silent() -> Iterator[Upstream]:
    """A server that takes a request and says nothing."""

    def infer(upstream, asked, context):
        until_given_up(context)
        context.abort(grpc.StatusCode.CANCELLED, "given up")

    with serving(infer) as made:
        yield made
