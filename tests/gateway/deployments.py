"""A catalog of a test's own, and servers that count what they were asked and do as they are told.

A model's name is new in every test: a gateway that outlives a test remembers how a model of that
name and version was reached.
"""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
from django.db import connections

from billing.pricing.catalog_prices import publish_catalog_prices
from meterplane.catalog.sync import sync_catalog
from meterplane.contracts import usage
from tenants.limits import set_limit
from tests.conftest import OnboardedOrganisation, free_port, wait_until
from tests.gateway.engine import chunked
from tests.triton.scripted import Peer, scripted

IN_NANO, OUT_NANO = 150, 600  # per token, of a model that says nothing else
PRICES = {"input_token": "0.00000015", "output_token": "0.0000006", "request": "0"}
TENSOR_PRICES = {"input_token": "0", "output_token": "0", "request": "0.00001"}
TENSOR_NANO = 10_000

CHAT, CHUNKS = "/v1/chat/completions", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TENSORS = {"inputs": [{"name": "INPUT0", "shape": [1], "datatype": "FP32", "data": [1]}]}
ALIVE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

Answer = Callable[[Peer], Awaitable[None]]


class Deployment:
    """A server: `asked` counts requests, probes aside; `answer` is what it does with one."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked = 0
        self.probed = 0
        self.url = ""

    async def script(self, peer: Peer) -> None:
        while request := await peer.request():
            if request.startswith(b"GET"):
                self.probed += 1
                await peer.send(ALIVE)
            else:
                self.asked += 1
                await self.answer(peer)


@asynccontextmanager
async def deployed(*answers: Answer):
    """One server for each answer."""
    async with deployed_at([0] * len(answers), *answers) as made:
        yield made


@asynccontextmanager
async def deployed_at(ports: list[int], *answers: Answer):
    """On these ports."""
    if not answers:
        yield []
        return
    one = Deployment(answers[0])
    async with scripted(one.script, ports[0]) as server:
        one.url = server.url
        async with deployed_at(ports[1:], *answers[1:]) as others:
            yield [one, *others]


def nowhere() -> str:
    """An address that refuses connections."""
    return f"http://127.0.0.1:{free_port()}"


def whole(body: dict[str, Any] | bytes, status: str = "200 OK") -> bytes:
    """A plain answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    return head.encode() + b"\r\n\r\n" + content


def says(*pieces: bytes, pause_s: float = 0) -> Answer:
    """These bytes, whatever is asked."""

    async def answer(peer: Peer) -> None:
        await peer.send(*pieces, pause_s=pause_s)

    return answer


def completion(tokens_in: int = 4, tokens_out: int = 3) -> bytes:
    """A chat completion of an OpenAI-compatible server."""
    usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "hi"},
        "finish_reason": "stop",
    }
    return whole({"object": "chat.completion", "choices": [choice], "usage": usage})


def delta(text: str = "word ") -> bytes:
    """One chunk of its stream."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return chunked(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")


def totals(tokens_in: int, tokens_out: int) -> bytes:
    """The end of its stream."""
    usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}
    event = json.dumps({"choices": [], "usage": usage}).encode()
    return chunked(b"data: " + event + b"\n\ndata: [DONE]\n\n") + b"0\r\n\r\n"


TENSOR_ANSWER = whole(
    {
        "model_name": "m",
        "model_version": "1",
        "outputs": [{"name": "OUTPUT0", "shape": [1], "datatype": "FP32", "data": [1]}],
    }
)
NOT_NOW = whole({"error": "no capacity"}, "503 Service Unavailable")


def new_name(prefix: str = "model") -> str:
    """A name no other test has."""
    return f"{prefix}-{secrets.token_hex(4)}"


def model(name: str, adapter: str = "openai", **fields: Any) -> dict[str, Any]:
    """A model of a catalog file."""
    tokens = {"context_tokens_max": 4096, "output_tokens_max": 1024, "output_tokens_default": 9}
    bounds = dict.fromkeys(tokens, 0) if adapter == "tensor" else tokens
    prices = TENSOR_PRICES if adapter == "tensor" else PRICES
    made = {"name": name, "display_name": name, "upstream": name, "adapter": adapter}
    return made | bounds | {"prices": prices} | fields


def target(name: str, *servers: str, weight: int = 1, **fields: Any) -> dict[str, Any]:
    """One deployment of a model."""
    return {"name": name, "servers": list(servers), "weight": weight} | fields


def put_on_sale(folder: Path, *models: dict[str, Any]) -> None:
    """Make these models the catalog's."""
    path = folder / "catalog.json"
    path.write_text(json.dumps({"models": list(models)}))
    sync_catalog(path)
    publish_catalog_prices(path)


def limit_rate(tenant: OnboardedOrganisation, per_minute: int, burst: int) -> None:
    """Let an organisation ask so often."""
    set_limit(
        tenant_id=tenant.id,
        level="organisation",
        scope_id=tenant.id,
        kind="requests",
        window="minute",
        amount=per_minute,
        burst=burst,
    )


def let_in(
    onboard: Callable[..., OnboardedOrganisation], slug: str = "acme", **limits: int
) -> OnboardedOrganisation:
    """A tenant who may ask as often as a test does, and leaves no connection to PostgreSQL open."""
    tenant = onboard(slug, **limits)
    limit_rate(tenant, 6_000_000, 1_000_000)
    connections.close_all()
    return tenant


def asking(name: str, **fields: Any) -> dict[str, Any]:
    """A chat's request."""
    return {"model": name, "messages": [{"role": "user", "content": "x"}]} | fields


@asynccontextmanager
async def clients_of(gateway: Any, onboard: Callable[..., OnboardedOrganisation], folder: Path):
    """A function that puts models on sale and gives a client of a tenant who may use them."""
    clients = []

    def open_for(*models: dict[str, Any]) -> httpx.AsyncClient:
        put_on_sale(folder, *models)
        headers = {"Authorization": f"Bearer {let_in(onboard).secret}"}
        clients.append(httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20))
        return clients[-1]

    yield open_for
    for client in clients:
        await client.aclose()


async def settlements(gateway: Any, count: int = 1) -> list[usage.Settle]:
    """The usage events, once there are `count`; never more, one for each request id."""

    def there() -> bool:
        return len(gateway.settles()) >= count

    await asyncio.to_thread(wait_until, there, f"{count} settlements")
    found: list[usage.Settle] = gateway.settles()
    assert len({each.request_id for each in found}) == len(found) == count
    assert {each.request_id for each in gateway.admits()} == {each.request_id for each in found}
    return found


def events(answer: httpx.Response) -> list[Any]:
    """What a stream's events say, its end mark aside."""
    return [json.loads(line[6:]) for line in answer.text.split("\n\n") if line[6:7] == "{"]


def last_event(answer: httpx.Response) -> Any:
    """The end of a stream that did not end well."""
    assert "[DONE]" not in answer.text
    return events(answer)[-1]
