"""A real gateway process in front of the real Triton, PostgreSQL and Redis."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import pytest

from billing.pricing.catalog_prices import publish_catalog_prices
from meterplane.catalog.sync import sync_catalog
from meterplane.contracts import usage
from meterplane.journal.reader import frames_under
from tests.conftest import OnboardedOrganisation, TritonServer, free_port, stop, wait_until

ROOT = Path(__file__).resolve().parents[2]
CATALOG = ROOT / "infra" / "triton" / "catalog.json"


@dataclass(slots=True)
class GatewayProcess:
    """One running gateway and its journal."""

    url: str
    journal: Path
    process: "subprocess.Popen[bytes]"
    log: Path

    def client(self, secret: str, **extra: object) -> httpx.Client:
        """An HTTP client that presents `secret`."""
        headers = {"Authorization": f"Bearer {secret}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, **extra)  # type: ignore[arg-type]

    def frames(self) -> list[usage.Frame]:
        """Everything in the journal, in order."""
        return list(frames_under(self.journal))

    def settles(self) -> list[usage.Settle]:
        """The usage events in the journal."""
        return [frame for frame in self.frames() if isinstance(frame, usage.Settle)]

    def admits(self) -> list[usage.Admit]:
        """The admissions in the journal."""
        return [frame for frame in self.frames() if isinstance(frame, usage.Admit)]


def gateway_environment(journal: Path, port: int, triton_url: str) -> dict[str, str]:
    """The environment a gateway is started with."""
    return os.environ | {
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "GATEWAY_WORKER": "test",
        "JOURNAL_DIR": str(journal),
        "TRITON_URLS": triton_url,
    }


@pytest.fixture
def start_gateway(
    transactional_db: None, redis_url: str, tmp_path: Path
) -> Iterator[Callable[..., GatewayProcess]]:
    """Start gateways: `start_gateway(triton_url)`, several side by side if a test wants."""
    running: list[GatewayProcess] = []

    def start(triton_url: str, **overrides: str) -> GatewayProcess:
        number = len(running)
        port, journal = free_port(), tmp_path / f"journal-{number}"
        log = tmp_path / f"gateway-{number}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "meterplane.gateway"],
                env=gateway_environment(journal, port, triton_url) | overrides,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        gateway = GatewayProcess(f"http://127.0.0.1:{port}", journal, process, log)
        running.append(gateway)

        def answers() -> bool:
            if process.poll() is not None:
                pytest.fail(f"the gateway ended: {log.read_text()[-2000:]}")
            try:
                return httpx.get(f"{gateway.url}/readyz").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, "the gateway answering")
        return gateway

    yield start
    for gateway in running:
        if gateway.process.poll() is None:
            stop(gateway.process)
        shutil.rmtree(gateway.journal, ignore_errors=True)


@pytest.fixture
def gateway(start_gateway: Callable[..., GatewayProcess], triton: TritonServer) -> GatewayProcess:
    """One gateway in front of the sample models."""
    return start_gateway(triton.http_url)


@pytest.fixture
def selling(transactional_db: None, redis_url: str) -> None:
    """The catalog's models, on sale."""
    sync_catalog(CATALOG)
    publish_catalog_prices(CATALOG)


@pytest.fixture
def acme(selling: None, onboard: Callable[..., OnboardedOrganisation]) -> OnboardedOrganisation:
    """A tenant whose key may use every sample model."""
    return onboard("acme")
