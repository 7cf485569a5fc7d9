"""A line of a batch whose worker leaves: it runs to its end, and its second try is the same event.

The worker that comes back asks under the same request id, and metering keeps the first event of an
id. Were the first try cut, that event would be of half an answer, and the whole one free.
"""

import asyncio
import json

import httpx2 as httpx
import pytest
from django.conf import settings

from meterplane.contracts import batch_pass
from meterplane.gateway.authenticate import bearer_digest
from meterplane.kernel import clock
from meterplane.kernel.ids import uuid7
from tests.conftest import wait_until
from tests.gateway.conftest import as_if_new
from tests.gateway.deployments import (
    CHAT,
    CHUNKS,
    IN_NANO,
    OUT_NANO,
    PRICES,
    Deployment,
    asking,
    let_in,
    model,
    new_name,
    put_on_sale,
    target,
)
from tests.gateway.engine import END, event
from tests.triton.scripted import scripted

pytestmark = pytest.mark.django_db(transaction=True)

WORDS = 20
HALF = PRICES | {"batch_multiplier": "0.5"}


@pytest.fixture
def gateway(transactional_db, redis_url, one_gateway):
    return as_if_new(one_gateway)


async def words(peer):
    await peer.send(CHUNKS, *[event()] * WORDS, event("", 0, "stop"), END, pause_s=0.02)


async def silence(peer):
    await peer.gone()


@pytest.fixture
async def server():
    made = Deployment(words)
    async with scripted(made.script) as listening:
        made.url = listening.url
        yield made


@pytest.fixture
async def line(gateway, onboard, tmp_path, server):
    """`line(timeout_s)` asks for the one line of this test, as the worker does."""
    name = new_name()
    put_on_sale(
        tmp_path,
        model(
            name,
            "vllm",
            targets=[target("a", server.url, region="eu")],
            prices=HALF,
            duration_s_max=1,
        ),
    )
    signed = batch_pass.sign(
        batch_pass.BatchPass(
            digest=bearer_digest(
                b"Bearer " + let_in(onboard).secret.encode(), settings.API_KEY_PEPPER
            ),
            request_id=uuid7(),
            batch_id=uuid7(),
            expires_at_ms=clock.now_ms() + 60_000,
        ),
        settings.API_KEY_PEPPER,
    )
    headers = {"Authorization": f"Meterplane-Batch {signed}"}

    async def ask(timeout_s):
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
            return await client.post(CHAT, json=asking(name, max_tokens=50), timeout=timeout_s)

    return ask


async def settled(gateway, count):
    def there():
        return len(gateway.settles()) >= count

    await asyncio.to_thread(wait_until, there, f"{count} settlements")
    return gateway.settles()


async def test_a_line_whose_worker_leaves_is_computed_to_its_end(gateway, line, server):
    with pytest.raises(httpx.ReadTimeout):
        await line(0.1)
    (first,) = await settled(gateway, 1)
    assert (first.status, first.tokens_out, first.service_tier) == ("ok", WORDS, "batch")
    assert (first.priority, first.region) == ("low", "eu")  # whatever the organisation's class is
    assert first.cost_nano * 2 == 4 * IN_NANO + WORDS * OUT_NANO
    answer = await line(20)
    assert json.loads(answer.content)["usage"]["completion_tokens"] == WORDS
    _, second = await settled(gateway, 2)
    # What metering drops as a repetition says the same as what it kept.
    assert (second.request_id, second.cost_nano) == (first.request_id, first.cost_nano)
    assert server.asked == 2


async def test_a_line_nobody_waits_for_still_has_its_end(gateway, line, server):
    server.answer = silence
    with pytest.raises(httpx.ReadTimeout):
        await line(0.1)
    (settle,) = await settled(gateway, 1)
    assert (settle.status, settle.http_status, settle.cost_nano) == ("interrupted", 504, 0)
    assert settle.total_ms < 4000
