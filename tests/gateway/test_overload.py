"""A busy model behind a real gateway process: who waits, who is told at once, and what that costs.

The servers answer when the test says so: nothing here depends on how fast the machine is.
"""

import asyncio

import httpx2 as httpx
import pytest
import redis
from django.db import connections

from tenants.keys import revoke_key
from tenants.limits import set_limit
from tests.conftest import free_port, wait_until
from tests.gateway.conftest import as_if_new, end, launch
from tests.gateway.deployments import (
    NOT_NOW,
    TENSOR_ANSWER,
    TENSORS,
    clients_of,
    deployed,
    model,
    new_name,
    nowhere,
    says,
    settlements,
    target,
)

pytestmark = pytest.mark.django_db(transaction=True)


class Held:
    """A server's answers, held until `let` so many."""

    def __init__(self):
        self.allowed = asyncio.Semaphore(0)
        self.open = 0
        self.most = 0
        self.asked = 0

    async def answer(self, peer):
        self.asked += 1
        self.open += 1
        self.most = max(self.most, self.open)
        await self.allowed.acquire()
        self.open -= 1
        await peer.send(TENSOR_ANSWER)

    def let(self, count=1):
        for _ in range(count):
            self.allowed.release()


PORT = free_port()


@pytest.fixture(scope="module")
def one_gateway(django_db_setup, tmp_path_factory):
    folder = tmp_path_factory.mktemp("overload") / "gateway"
    gateway = launch(folder, nowhere(), GATEWAY_METRICS_PORT=str(PORT))
    yield gateway
    end(gateway)


@pytest.fixture
def gateway(transactional_db, redis_url, one_gateway):
    return as_if_new(one_gateway)


@pytest.fixture
async def shop(gateway, onboard, tmp_path):
    async with clients_of(gateway, onboard, tmp_path) as open_for:
        yield open_for


def bounded(name, server, **fields):
    return model(name, "tensor", targets=[target("a", server.url)], **fields)


def ask(client, name, **headers):
    return asyncio.ensure_future(
        client.post(f"/v2/models/{name}/infer", json=TENSORS, headers=headers)
    )


async def until(condition, what):
    await asyncio.to_thread(wait_until, condition, what)


def gauge(family, name):
    """What the gateway's metrics say of one model; None before it was asked for."""
    text = httpx.get(f"http://127.0.0.1:{PORT}/metrics").text
    found = [x for x in text.splitlines() if x.startswith(family + "{") and name in x]
    return float(found[0].rpartition(" ")[2]) if found else None


async def queued(name, count):
    """Until so many wait."""
    await until(lambda: gauge("meterplane_gateway_queued", name) == count, f"{count} waiting")


def open_reservations(redis_url):
    with redis.Redis.from_url(redis_url) as server:
        return list(server.scan_iter("mp:*:reservation:*"))


async def test_only_so_many_are_forwarded_and_the_others_wait(shop, gateway):
    held = Held()
    async with deployed(held.answer) as (server,):
        name = new_name()
        client = shop(bounded(name, server, in_flight_max=3))
        asked = [ask(client, name) for _ in range(9)]
        await until(lambda: held.asked == 3, "three being forwarded")
        await queued(name, 6)
        await asyncio.sleep(0.05)
        held.let(9)
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
    assert held.most == 3
    settled = await settlements(gateway, 9)
    # The wait for a turn is the gateway's, not the model's.
    assert sum(each.queue_us > 20_000 for each in settled) >= 6


async def test_who_finds_no_place_is_told_when_to_come_back_and_leaves_nothing(
    shop, gateway, redis_url
):
    held = Held()
    async with deployed(held.answer) as (server,):
        name = new_name()
        client = shop(bounded(name, server, in_flight_max=1, queue_max=1))
        first = ask(client, name)
        await until(lambda: held.asked == 1, "one being forwarded")
        second = ask(client, name)
        await queued(name, 1)
        answer = await ask(client, name)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert "more requests than it can serve" in answer.json()["error"]
        assert len(gateway.admits()) == 1  # nor has the one that waits
        held.let(2)
        assert {each.status_code for each in await asyncio.gather(first, second)} == {200}
        assert gauge("meterplane_gateway_shed_total", name) == 1
        # What the model may take again is free.
        held.let()
        assert (await ask(client, name)).status_code == 200
    await settlements(gateway, 3)
    await until(lambda: not open_reservations(redis_url), "no reservation left")


async def test_who_leaves_while_waiting_gives_the_place_to_another(shop, gateway, redis_url):
    held = Held()
    async with deployed(held.answer) as (server,):
        name = new_name()
        client = shop(bounded(name, server, in_flight_max=1, queue_max=1))
        first = ask(client, name)
        await until(lambda: held.asked == 1, "one being forwarded")
        leaving = ask(client, name)
        await queued(name, 1)
        leaving.cancel()
        await queued(name, 0)
        second = ask(client, name)
        await queued(name, 1)
        held.let(2)
        assert {each.status_code for each in await asyncio.gather(first, second)} == {200}
    assert held.asked == 2
    await settlements(gateway, 2)
    await until(lambda: not open_reservations(redis_url), "no reservation left")


async def test_who_leaves_while_forwarded_gives_the_turn_to_the_next(shop, gateway):
    held = Held()
    async with deployed(held.answer) as (server,):
        name = new_name()
        client = shop(bounded(name, server, in_flight_max=1))
        leaving = ask(client, name)
        await until(lambda: held.asked == 1, "one being forwarded")
        second = ask(client, name)
        await queued(name, 1)
        leaving.cancel()
        await until(lambda: held.asked == 2, "the next being forwarded")
        held.let(2)
        assert (await second).status_code == 200
    await settlements(gateway, 2)


async def test_a_model_that_fails_gives_its_turn_to_the_next(shop, gateway):
    name = new_name()
    client = shop(model(name, "tensor", targets=[target("a", nowhere())], in_flight_max=1))
    answers = await asyncio.gather(*(ask(client, name) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {503}
    assert gauge("meterplane_gateway_turns", name) == 0
    await settlements(gateway, 5)


async def test_who_moves_on_to_another_target_keeps_the_turn(shop, gateway):
    """What a full server refused is still one of so many that the model's servers have at once."""
    held = Held()
    async with deployed(says(NOT_NOW), held.answer) as (full, server):
        name = new_name()
        targets = [target("full", full.url, weight=1000), target("free", server.url)]
        client = shop(model(name, "tensor", targets=targets, in_flight_max=1))
        asked = [ask(client, name) for _ in range(3)]
        await until(lambda: held.asked >= 1, "one being forwarded")
        await queued(name, 2)
        held.let(3)
        assert {each.status_code for each in await asyncio.gather(*asked)} == {200}
    assert held.most == 1
    await settlements(gateway, 3)


async def test_a_wait_that_is_up_is_told(shop, gateway):
    held = Held()
    async with deployed(held.answer) as (server,):
        name = new_name()
        client = shop(bounded(name, server, in_flight_max=1))
        first = ask(client, name)
        await until(lambda: held.asked == 1, "one being forwarded")
        late = await ask(client, name, **{"x-request-timeout-ms": "100"})
        assert late.status_code == 503
        wrong = await ask(client, name, **{"x-request-timeout-ms": "soon"})
        assert (wrong.status_code, wrong.json()["error"][:21]) == (400, "X-Request-Timeout-Ms ")
        held.let()
        assert (await first).status_code == 200
    await settlements(gateway, 1)


async def test_a_fallback_that_is_busy_is_passed_over_for_the_next(shop, gateway):
    held, spare = Held(), Held()
    async with deployed(held.answer, spare.answer) as (busy, other):
        first, second, third = new_name(), new_name(), new_name()
        client = shop(
            model(first, "tensor", targets=[target("a", nowhere())], fallbacks=[second, third]),
            bounded(second, busy, in_flight_max=1),
            bounded(third, other, in_flight_max=1),
        )
        running = ask(client, second)
        await until(lambda: held.asked == 1, "the first fallback being busy")
        spare.let()
        answer = await ask(client, first)
        assert answer.status_code == 200
        held.let()
        assert (await running).status_code == 200
        assert gauge("meterplane_gateway_turns", third) == 0
    settled = await settlements(gateway, 2)
    assert sorted(each.model for each in settled) == sorted([second, third])


async def test_a_busy_models_fallback_serves_what_would_be_shed(shop, gateway):
    """A model that cannot take a request, as one whose servers cannot: at the fallback's prices."""
    held = Held()
    async with deployed(held.answer, says(TENSOR_ANSWER)) as (busy, other):
        name, full, spare = new_name(), new_name(), new_name()
        client = shop(
            bounded(name, busy, in_flight_max=1, queue_max=0, fallbacks=[full, spare]),
            bounded(full, busy, in_flight_max=1, queue_max=0),
            bounded(spare, other, in_flight_max=1),
        )
        running = [ask(client, name), ask(client, full)]
        await until(lambda: held.asked == 2, "two being forwarded")
        assert (await ask(client, name)).status_code == 200
        held.let(2)
        assert {each.status_code for each in await asyncio.gather(*running)} == {200}
        assert gauge("meterplane_gateway_turns", spare) == 0
    first, *_ = await settlements(gateway, 3)
    assert (first.model, first.requested_model) == (spare, name)
    assert sorted(each.model for each in gateway.admits()) == sorted([name, full, spare])


async def test_the_wait_is_part_of_what_a_request_took(shop, gateway):
    held = Held()
    async with deployed(held.answer) as (server,):
        name = new_name()
        client = shop(bounded(name, server, in_flight_max=1))
        asked = [ask(client, name) for _ in range(2)]
        await queued(name, 1)
        await asyncio.sleep(0.3)
        held.let()
        await until(lambda: held.asked == 2, "the next being forwarded")
        held.let()
        await asyncio.gather(*asked)
    _, waited = await settlements(gateway, 2)
    assert waited.total_ms >= 300 + waited.compute_us // 1000


async def test_who_is_revoked_while_waiting_is_never_forwarded(shop, gateway, onboard):
    held = Held()
    async with deployed(held.answer) as (server,):
        name = new_name()
        client = shop(bounded(name, server, in_flight_max=1, queue_s_max=30))
        other = onboard("other")
        first = ask(client, name)
        await until(lambda: held.asked == 1, "one being forwarded")
        headers = {"Authorization": f"Bearer {other.secret}"}
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as revoked:
            waiting = ask(revoked, name)
            await queued(name, 1)
            revoke_key(tenant_id=other.id, key_id=other.key_id)
            connections.close_all()
            assert (await waiting).status_code == 401
        held.let()
        assert (await first).status_code == 200
    assert held.asked == 1
    await settlements(gateway, 1)


async def test_who_waits_while_redis_is_lost_is_never_forwarded_on_what_it_held(
    shop, gateway, onboard, redis_url
):
    """By the time of its turn, what it reserved may have been granted to somebody else."""
    held = Held()
    async with deployed(held.answer) as (server,):
        name = new_name()
        client = shop(bounded(name, server, in_flight_max=1, queue_s_max=30))
        other = onboard("other")
        set_limit(
            tenant_id=other.id, level="organisation", scope_id=other.id, kind="spend",
            window="month", amount=10**9,
        )  # fmt: skip
        connections.close_all()
        first = ask(client, name)
        await until(lambda: held.asked == 1, "one being forwarded")
        headers = {"Authorization": f"Bearer {other.secret}"}
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as payer:
            waiting = ask(payer, name)
            await queued(name, 1)
            with redis.Redis.from_url(redis_url) as server_of_limits:
                server_of_limits.flushall()
            held.let()
            answer = await waiting
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert (await first).status_code == 200
    assert held.asked == 1
    await settlements(gateway, 1)


async def test_a_quiet_organisation_is_next_behind_a_loud_one(gateway, shop, onboard, tmp_path):
    held = Held()
    async with deployed(held.answer) as (server,):
        name = new_name()
        loud = shop(bounded(name, server, in_flight_max=1))
        quiet_key = onboard("quiet").secret
        connections.close_all()
        headers = {"Authorization": f"Bearer {quiet_key}"}
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as quiet:
            flood = [ask(loud, name) for _ in range(30)]
            await queued(name, 29)
            mine = ask(quiet, name)
            await queued(name, 30)
            held.let(2)
            assert (await mine).status_code == 200
            assert sum(each.done() for each in flood) <= 2
            held.let(29)
            await asyncio.gather(*flood)
    await settlements(gateway, 31)
