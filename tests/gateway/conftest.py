"""A real gateway process in front of the real Triton, PostgreSQL and Redis."""

import asyncio
import http.client
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import uvloop

from billing.pricing.catalog_prices import publish_catalog_prices
from meterplane.catalog.sync import sync_catalog
from meterplane.contracts import usage
from meterplane.journal.directory import list_directories
from meterplane.journal.reader import frames_of, read_segment
from meterplane.journal.segment import list_segments
from tests import environment
from tests.conftest import (
    OnboardedOrganisation,
    TritonServer,
    free_port,
    stop,
    superuser,
    wait_until,
)
from tests.gateway import kinds
from tests.gateway.deployments import let_in, nowhere, put_on_sale

ROOT = Path(__file__).resolve().parents[2]
CATALOG = ROOT / "infra" / "triton" / "catalog.json"


# The server's own connections are tested on both loops: the one of the tests and of the product.
ON_BOTH_LOOPS = {"test_body_budget", "test_connections", "test_http1", "test_lua_calls"}


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    both = item.path.parent.name == "gateway" and item.path.stem in ON_BOTH_LOOPS
    return {"asyncio": asyncio.new_event_loop} | ({"uvloop": uvloop.new_event_loop} if both else {})


@dataclass(slots=True)
class GatewayProcess:
    """One running gateway and its journal."""

    url: str
    journal: Path
    process: "subprocess.Popen[bytes]"
    log: Path
    frames_before: int = 0
    # A sealed segment changes no more; a shared gateway has hundreds, and tests ask all the time.
    _sealed: dict[Path, list[usage.Frame]] = field(default_factory=dict)

    def client(self, secret: str, **extra: object) -> httpx.Client:
        """An HTTP client that presents `secret`."""
        headers = {"Authorization": f"Bearer {secret}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, **extra)  # type: ignore[arg-type]

    def frames(self) -> list[usage.Frame]:
        """What this test put into the journal, in order."""
        while True:
            try:
                return list(self._all_frames())[self.frames_before :]
            except FileNotFoundError:
                continue  # a segment was sealed, and so renamed, between being listed and read

    def _all_frames(self) -> Iterator[usage.Frame]:
        for directory in list_directories(self.journal):
            for segment in list_segments(directory):
                frames = self._sealed.get(segment.path)
                if frames is None:
                    frames = list(frames_of(read_segment(segment.path)))
                    if segment.sealed:
                        self._sealed[segment.path] = frames
                yield from frames

    def settles(self) -> list[usage.Settle]:
        """The usage events in the journal."""
        return [frame for frame in self.frames() if isinstance(frame, usage.Settle)]

    def admits(self) -> list[usage.Admit]:
        """The admissions in the journal."""
        return [frame for frame in self.frames() if isinstance(frame, usage.Admit)]

    def at_rest(self) -> bool:
        """Nothing admitted is still running."""
        # A request that moves to a fallback is admitted again, under its id.
        frames = self.frames()
        admitted, settled = (
            {frame.request_id for frame in frames if isinstance(frame, kind)}
            for kind in (usage.Admit, usage.Settle)
        )
        return admitted == settled


PROGRAM = ("-m", "meterplane.gateway")


def launch(
    folder: Path, triton_url: str, program: Sequence[str] = PROGRAM, **overrides: str
) -> GatewayProcess:
    """Start a gateway process; returns when it answers."""
    folder.mkdir(parents=True)
    port, journal, log = free_port(), folder / "journal", folder / "gateway.log"
    variables = os.environ | {
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "GATEWAY_WORKER": "test",
        "JOURNAL_DIR": str(journal),
        "TRITON_URLS": triton_url,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *program],
            env=variables | overrides,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    gateway = GatewayProcess(f"http://127.0.0.1:{port}", journal, process, log)

    # One whose servers a test names itself may never be ready: that is what is tested.
    named = {"ADMISSION_REDIS_URL", "GATEWAY_DATABASE_URL"} & overrides.keys()
    probe = "/healthz" if named else "/readyz"

    def answers() -> bool:
        if process.poll() is not None:
            pytest.fail(f"the gateway ended: {log.read_text()[-2000:]}")
        # Asked fifty times a second; a client of httpx takes five milliseconds to be refused.
        asking = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            asking.request("GET", probe)
            return asking.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            asking.close()

    wait_until(answers, "the gateway answering")
    return gateway


def end(gateway: GatewayProcess) -> None:
    """Stop a gateway that still runs, and drop its journal."""
    if gateway.process.poll() is None:
        stop(gateway.process)
    shutil.rmtree(gateway.journal, ignore_errors=True)


@pytest.fixture
def start_gateway(
    transactional_db: None, redis_url: str, tmp_path: Path
) -> Iterator[Callable[..., GatewayProcess]]:
    """Start gateways of this test's own: `start_gateway(triton_url)`, several if it wants."""
    running: list[GatewayProcess] = []

    def start(triton_url: str, **extra: Any) -> GatewayProcess:
        running.append(launch(tmp_path / f"gateway-{len(running)}", triton_url, **extra))
        return running[-1]

    yield start
    for gateway in running:
        end(gateway)


@pytest.fixture(scope="session")
def shared_gateway(django_db_setup: None, triton: TritonServer) -> Iterator[GatewayProcess]:
    """One gateway in front of the sample models, for all tests that leave it alive."""
    gateway = launch(environment.HOME / "shared-gateway", triton.http_url)
    yield gateway
    end(gateway)


def as_if_new(gateway: GatewayProcess) -> GatewayProcess:
    """A shared gateway whose journal seems empty."""
    gateway.frames_before = 0
    wait_until(gateway.at_rest, "the test before this one ending")
    gateway.frames_before = len(gateway.frames())
    return gateway


@pytest.fixture(scope="module")
def one_gateway(
    django_db_setup: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A file's own, in front of nobody: its models name their servers."""
    gateway = launch(tmp_path_factory.mktemp("one-gateway") / "gateway", nowhere())
    yield gateway
    end(gateway)


@pytest.fixture
def gateway(
    transactional_db: None, redis_url: str, shared_gateway: GatewayProcess
) -> GatewayProcess:
    """The shared gateway in front of the sample models."""
    return as_if_new(shared_gateway)


@pytest.fixture(scope="session")
def kinds_triton() -> Iterator[TritonServer]:
    """Real Triton with models of every kind: all datatypes, batches, versions, many answers."""
    with kinds.triton_of_kinds() as server:
        yield server


@pytest.fixture(scope="session")
def shared_kinds_gateway(
    django_db_setup: None, kinds_triton: TritonServer
) -> Iterator[GatewayProcess]:
    """One gateway in front of that Triton."""
    gateway = launch(environment.HOME / "kinds-gateway", kinds_triton.http_url)
    yield gateway
    end(gateway)


@pytest.fixture
def kinds_gateway(
    transactional_db: None, redis_url: str, shared_kinds_gateway: GatewayProcess
) -> GatewayProcess:
    """The gateway in front of models of every kind."""
    return as_if_new(shared_kinds_gateway)


@pytest.fixture
def kinds_tenant(
    kinds_gateway: GatewayProcess,
    tmp_path: Path,
    onboard: Callable[..., OnboardedOrganisation],
) -> OnboardedOrganisation:
    """A tenant who may use them, under the names they are sold by, as often as a test does."""
    put_on_sale(tmp_path, *kinds.on_sale())
    return let_in(onboard)


@pytest.fixture
def selling(transactional_db: None, redis_url: str) -> None:
    """The catalog's models, on sale."""
    if not superuser().restore("selling"):
        sync_catalog(CATALOG)
        publish_catalog_prices(CATALOG)
        superuser().keep("selling")


@pytest.fixture
def acme(selling: None, onboard: Callable[..., OnboardedOrganisation]) -> OnboardedOrganisation:
    """A tenant whose key may use every sample model."""
    return onboard("acme")
