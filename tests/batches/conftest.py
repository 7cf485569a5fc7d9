"""The real web process, the OpenAI client at it, and a double of the gateway."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2 as httpx
import openai
import pytest
from openai.types import Batch as BatchShape

from meterplane.batches import identifiers
from meterplane.batches.advance import advance
from meterplane.batches.models import Batch
from meterplane.stack.embedded import EmbeddedCommand
from tenants.scoping import tenant_scope
from tests import environment
from tests.batches import gateway_double
from tests.conftest import OnboardedOrganisation, free_port, spawn, stop, wait_until

MODEL = "tiny-lm"
CHAT = "/v1/chat/completions"


def request_line(custom_id: str, text: str = "hello", **changed: Any) -> dict[str, Any]:
    """One good line of an input file, or one that is not."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body} | changed


def jsonl(*lines: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


@pytest.fixture(scope="session")
def web(servers: None, django_db_setup: None) -> Iterator[str]:
    """The control plane's web process as `make up` starts it."""
    port = free_port()
    command = EmbeddedCommand(
        argv=[
            *(sys.executable, "-m", "uvicorn", "meterplane.asgi:application"),
            *("--port", str(port), "--lifespan", "off", "--no-server-header"),
        ],
        env={},
    )
    process = spawn(command, environment.HOME / "logs" / "web.log")
    try:
        wait_until(lambda: _answers(f"http://127.0.0.1:{port}/healthz"), "the web answering")
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def client_of(web: str) -> Iterator[Callable[[OnboardedOrganisation], openai.OpenAI]]:
    """The OpenAI client of a tenant."""
    made: list[openai.OpenAI] = []

    def client(organisation: OnboardedOrganisation, secret: str = "") -> openai.OpenAI:
        made.append(
            openai.OpenAI(
                base_url=f"{web}/v1", api_key=secret or organisation.secret, max_retries=0
            )
        )
        return made[-1]

    yield client
    for each in made:
        each.close()


@pytest.fixture
def client(client_of: Any, organisation: OnboardedOrganisation) -> openai.OpenAI:
    made: openai.OpenAI = client_of(organisation)
    return made


@pytest.fixture
def http(web: str, organisation: OnboardedOrganisation) -> Iterator[httpx.Client]:
    """For what the OpenAI client would not send."""
    headers = {"Authorization": f"Bearer {organisation.secret}"}
    with httpx.Client(base_url=web, headers=headers) as made:
        yield made


@pytest.fixture(autouse=True)
def _no_files() -> Iterator[None]:
    """Tables are emptied after each test; so is what their rows stood for."""
    yield
    for path in stored_files():
        path.unlink()


@pytest.fixture
def gateway(settings: Any) -> Iterator[gateway_double.GatewayDouble]:
    with gateway_double.running() as double:
        settings.GATEWAY_INTERNAL_URL = double.url
        yield double


@pytest.fixture
def start(client: openai.OpenAI) -> Callable[..., BatchShape]:
    """Upload lines and start a batch of them."""

    def made(*lines: dict[str, Any], content: bytes = b"", **extra: Any) -> BatchShape:
        file = client.files.create(file=("in.jsonl", content or jsonl(*lines)), purpose="batch")
        wanted: dict[str, Any] = {"endpoint": CHAT, "completion_window": "24h"} | extra
        return client.batches.create(input_file_id=file.id, **wanted)

    return made


def drive(organisation: OnboardedOrganisation, shown: str, rounds: int = 50) -> Batch:
    """Be the worker until the batch has ended."""
    batch_id = identifiers.parse(identifiers.BATCH, shown)
    assert batch_id is not None
    for _ in range(rounds):
        advance(organisation.id, batch_id)
        batch = row(organisation, batch_id)
        if batch.status not in Batch.OPEN:
            return batch
    pytest.fail(f"{shown} is {batch.status} after {rounds} rounds")


def row(organisation: OnboardedOrganisation, batch_id: UUID | str) -> Batch:
    if isinstance(batch_id, str):
        parsed = identifiers.parse(identifiers.BATCH, batch_id)
        assert parsed is not None
        batch_id = parsed
    with tenant_scope(organisation.id):
        found: Batch = Batch.objects.get(id=batch_id)
    return found


def results(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of a result file; none when there is no file."""
    if file_id is None:
        return []
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def stored_files() -> list[Path]:
    """What is on disk."""
    from django.conf import settings

    return [path for path in Path(settings.FILES_DIR).rglob("*") if path.is_file()]
